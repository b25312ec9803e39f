// Package daemon is one peer, wired: it opens what the peer keeps on disk,
// makes the parts, connects them, and runs them.
//
// Its invariant: it decides nothing itself; what a part needs of another it
// gets here, through the contracts of package api, and the list in peer.go is
// the only place that knows the order of start and stop.
package daemon
