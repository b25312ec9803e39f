// Package clients runs programs and libraries of others against a mesh: Helm,
// kubectl of this and of an older version, client-go's informers, leader
// election and server-side apply.
//
// Its invariant: the clients are unmodified, and speak to peers as they would
// to any Kubernetes; only the node that makes pods run is hollow.
package clients
