package raftstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/store"
	"skein.dev/skein/raftstore"
	"skein.dev/skein/raftstore/storetest"
)

// run runs a store until the returned stop is called, which also closes it.
func run(t *testing.T, s *raftstore.Store) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return sync.OnceFunc(func() {
		cancel()
		running.Wait()
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
}

func onFiles(t *testing.T, dir string) (*raftstore.Store, func()) {
	t.Helper()
	m := &loopback{ports: map[string]string{}}
	id, err := raftstore.ServerID(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := raftstore.Open(raftstore.Config{
		Dir: dir, Name: "p", Address: "loopback", Bootstrap: true,
		Raft: m.network(t, "raft", id), Link: m.network(t, "link", id),
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, s)
	t.Cleanup(stop)
	return s, stop
}

func TestRestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	var last store.Revision
	var incarnation string
	var id member.ServerID
	for boot := range 4 {
		s, stop := onFiles(t, dir)
		if boot > 0 {
			if s.Local().Count("/k/", "") != boot*20 || s.Local().Revision() < last {
				t.Fatalf("boot %d: %d keys at %d before any quorum", boot, s.Local().Count("/k/", ""), s.Local().Revision())
			}
			if s.Incarnation() != incarnation || s.ServerID() != id {
				t.Fatalf("boot %d: another incarnation or server", boot)
			}
		}
		for i := range 20 {
			last = put(t, s, fmt.Sprintf("/k/%d-%d", boot, i), "v").Revision
		}
		id, incarnation = s.ServerID(), s.Incarnation()
		if boot == 1 { // the rest is restored from a snapshot and the log after it
			if err := s.Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
		stop()
	}
}

func TestOnlyVoterLeadsAtOnce(t *testing.T) {
	s, err := raftstore.Open(raftstore.Config{
		Dir: t.TempDir(), Name: "p", Address: "loopback", Bootstrap: true,
		Raft: (&loopback{ports: map[string]string{}}).network(t, "raft", "x"),
		Link: (&loopback{ports: map[string]string{}}).network(t, "link", "x"),
		// An election would outlast the test.
		Timing: raftstore.Timing{Heartbeat: time.Hour, Election: time.Hour, Stall: time.Minute},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer run(t, s)()
	put(t, s, "/k", "v")
}

func TestDataDirectoryIsOnePeers(t *testing.T) {
	dir := t.TempDir()
	a, err := raftstore.ServerID(dir)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := raftstore.ServerID(dir); err != nil || a != b {
		t.Errorf("id %s, then %s: %v", a, b, err)
	}
	s, stop := onFiles(t, dir)
	if s.ServerID() != a {
		t.Errorf("store has id %s, directory %s", s.ServerID(), a)
	}
	stop()
	if err := os.Remove(filepath.Join(dir, "server-id")); err != nil {
		t.Fatal(err)
	}
	if _, err := raftstore.ServerID(dir); err == nil || !strings.Contains(err.Error(), "server-id") {
		t.Errorf("a log without its id: %v", err)
	}
}

// fullDisk is a storage whose log takes nothing while full is set.
type fullDisk struct {
	raft.LogStore
	mu   sync.Mutex
	full bool
}

func (d *fullDisk) set(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
}

func (d *fullDisk) StoreLogs(l []*raft.Log) error {
	d.mu.Lock()
	full := d.full
	d.mu.Unlock()
	if full {
		return fmt.Errorf("write log: %w", syscall.ENOSPC)
	}
	return d.LogStore.StoreLogs(l)
}

func TestFullDiskIsAnErrorAndPasses(t *testing.T) {
	storage := storetest.Memory()
	disk := &fullDisk{LogStore: storage.Logs}
	storage.Logs = disk
	s := storetest.Open(t, storage)
	put(t, s, "/before", "v")
	disk.set(true)
	_, err := s.Propose(t.Context(), store.Txn{Ops: []store.Op{{Key: "/full", Value: []byte("v")}}})
	if !errors.Is(err, store.ErrNoSpace) {
		t.Errorf("write on a full disk: %v", err)
	}
	if s.Local().Get("/before") == nil || s.Local().Get("/full") != nil {
		t.Error("local reads are wrong on a full disk")
	}
	disk.set(false)
	for errors.Is(err, store.ErrNoSpace) { // until raft's next write has found space
		_, err = s.Propose(t.Context(), store.Txn{Ops: []store.Op{{Key: "/after", Value: []byte("v")}}})
	}
	if err != nil || s.Local().Get("/after") == nil {
		t.Errorf("write when there is space again: %v", err)
	}
}

func TestClosedStoreSaysSo(t *testing.T) {
	s, err := raftstore.Open(raftstore.Config{ServerID: "x", Name: "x", Bootstrap: true, Storage: storetest.Memory()})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, s)
	put(t, s, "/k", "v")
	w, err := s.Watch("/", false, s.Local().Revision())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		for {
			if _, _, err := w.Next(context.Background(), true); err != nil {
				ended <- err
				return
			}
		}
	}()
	stop()
	if err := <-ended; !errors.Is(err, store.ErrClosed) {
		t.Errorf("watch: %v", err)
	}
	if _, err := s.Propose(t.Context(), store.Txn{Ops: []store.Op{{Key: "/k"}}}); !errors.Is(err, store.ErrClosed) {
		t.Errorf("propose: %v", err)
	}
	if _, err := s.Current(t.Context()); !errors.Is(err, store.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if err := s.Wait(t.Context(), 1<<40); !errors.Is(err, store.ErrClosed) {
		t.Errorf("wait: %v", err)
	}
}

func TestQueueIsBounded(t *testing.T) {
	// Nobody leads: without Bootstrap an empty peer waits to be added.
	s, err := raftstore.Open(raftstore.Config{ServerID: "x", Name: "x", Storage: storetest.Memory(), Queue: 8})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, s)
	var all sync.WaitGroup
	var mu sync.Mutex
	got := map[string]int{}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	for range 20 {
		all.Go(func() {
			_, err := s.Propose(ctx, store.Txn{Ops: []store.Op{{Key: "/k"}}})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, store.ErrOverloaded):
				got["overloaded"]++
			case errors.Is(err, store.ErrNoQuorum) && !errors.Is(err, store.ErrUnknown):
				got["no quorum"]++
			default:
				t.Errorf("got %v", err)
			}
		})
	}
	all.Wait()
	if got["overloaded"] != 12 || got["no quorum"] != 8 {
		t.Errorf("got %v", got)
	}
	stop()
}
