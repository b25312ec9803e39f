// Package fsm is the replicated machine of the store: what a log of
// transactions makes of the cluster's data, with no clock, disk or network.
//
// Its invariant: two machines that applied the same entries show the same
// data, revisions, roles and hash; no input makes Apply panic, it refuses.
package fsm
