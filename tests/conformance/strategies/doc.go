// Package strategies is an oracle: it asks Kubernetes' own registries and ours
// the same questions and compares the answers. The questions are objects of
// every kind, made by hand and changed at random; the answers are what is
// accepted, with which errors and warnings, what is stored, and how it is
// shown.
//
// Its invariant: both sides are run by the same generic code of
// k8s.io/apiserver; only the rules of the kinds differ.
package strategies
