// Package apiserver is the Kubernetes API of one peer, on the published
// component libraries and the replicated store.
//
// Its invariant: every change of cluster data passes one handler chain, from
// wherever it comes: components of the peer itself are authenticated,
// authorized and admitted as what they are, only without a network between.
package apiserver
