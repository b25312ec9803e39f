// Package outofprocess runs the components of a node as separate programs
// would run: each has a TLS connection to a real API server as its own user,
// and ordinary informers. In a peer they read the replica itself, which no
// authorizer sees.
//
// Its invariant: a request that is refused for lack of rights fails the test,
// and so does a right that goes further than the component needs.
package outofprocess
