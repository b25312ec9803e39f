// Package storetest gives tests a store of their own: one peer, its log in
// memory, no network.
//
// Its invariant: it is the product's store and no imitation, so that what
// passes on it holds on a real one.
package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"skein.dev/skein/api/member"
	"skein.dev/skein/raftstore"
)

// Peer is the name of the store's only peer, which holds all roles.
const Peer member.Name = "peer-1"

// New returns a running store that is empty and leads itself; it ends with
// the test. It may be called inside a synctest bubble.
func New(tb testing.TB) *raftstore.Store {
	tb.Helper()
	return Open(tb, Memory())
}

// Memory is a storage that forgets with the process.
func Memory() *raftstore.Storage {
	s := raft.NewInmemStore()
	return &raftstore.Storage{
		Logs: s, Stable: s, Snapshots: raft.NewInmemSnapshotStore(),
		Close: func() error { return nil },
	}
}

// Open returns a running store of one peer on a storage.
func Open(tb testing.TB, storage *raftstore.Storage) *raftstore.Store {
	tb.Helper()
	s, err := raftstore.Open(raftstore.Config{
		ServerID: "server-1", Name: Peer, Bootstrap: true, Storage: storage,
		Timing: raftstore.Timing{Heartbeat: 20 * time.Millisecond, Election: 20 * time.Millisecond, Lease: 20 * time.Millisecond},
	})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("run store: %v", err)
		}
		if err := s.Close(); err != nil {
			tb.Errorf("close store: %v", err)
		}
	})
	if _, err := s.Current(tb.Context()); err != nil {
		tb.Fatalf("read new store: %v", err)
	}
	return s
}
