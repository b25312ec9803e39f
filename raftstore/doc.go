// Package raftstore is the replicated store of the mesh: the machine of
// package fsm driven by hashicorp/raft, with its log on disk, its voters
// chosen and its roles assigned by whichever peer leads.
//
// Its invariant: a write that was acknowledged anywhere is in every later
// linearizable read on every peer, whoever crashed in between.
package raftstore
