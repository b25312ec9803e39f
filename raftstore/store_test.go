package raftstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skein.dev/skein/api/role"
	"skein.dev/skein/api/store"
	"skein.dev/skein/raftstore/storetest"
)

func put(tb testing.TB, s store.Store, key, value string) store.Result {
	tb.Helper()
	res, err := s.Propose(tb.Context(), store.Txn{Ops: []store.Op{{Key: key, Value: []byte(value)}}})
	if err != nil || !res.Held {
		tb.Fatalf("put %s: held %v, %v", key, res.Held, err)
	}
	return res
}

func TestProposeShowsLocally(t *testing.T) {
	s := storetest.New(t)
	res := put(t, s, "/registry/a/1", "one")
	e := s.Local().Get("/registry/a/1")
	if e == nil || string(e.Value) != "one" || e.Mod != res.Revision || e.Create != res.Revision {
		t.Fatalf("got %+v after revision %d", e, res.Revision)
	}
	v, err := s.Current(t.Context())
	if err != nil || v.Revision() < res.Revision {
		t.Fatalf("current at %v: %v", v, err)
	}
	if !s.Verified() {
		t.Error("not verified after a linearizable read")
	}
}

func TestGuardTellsWhatStands(t *testing.T) {
	s := storetest.New(t)
	first := put(t, s, "/k", "1")
	create := store.Txn{Guards: []store.Guard{{Key: "/k"}}, Ops: []store.Op{{Key: "/k", Value: []byte("2")}}}
	res, err := s.Propose(t.Context(), create)
	if err != nil || res.Held || res.Failed == nil || res.Failed.Mod != first.Revision {
		t.Fatalf("got %+v, %v", res, err)
	}
	create.Guards[0].Mod = first.Revision
	if res, err = s.Propose(t.Context(), create); err != nil || !res.Held || string(res.Prev[0].Value) != "1" {
		t.Fatalf("got %+v, %v", res, err)
	}
}

func TestWatchYieldsWhatItSelects(t *testing.T) {
	s := storetest.New(t)
	from := s.Local().Revision()
	w, err := s.Watch("/registry/pods/", false, from)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	go func() {
		for i := range 100 {
			put(t, s, fmt.Sprintf("/registry/pods/%d", i), "x")
			put(t, s, fmt.Sprintf("/registry/other/%d", i), "x")
		}
	}()
	for got := 0; got < 100; {
		events, through, err := w.Next(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if want := fmt.Sprintf("/registry/pods/%d", got); e.Key != want || e.Revision > through {
				t.Fatalf("got %s at %d through %d, want %s", e.Key, e.Revision, through, want)
			}
			got++
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := w.Next(ctx, true); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("idle watch: %v", err)
	}
	w.Close()
	if _, _, err := w.Next(t.Context(), true); !errors.Is(err, store.ErrClosed) {
		t.Errorf("closed watch: %v", err)
	}
}

func TestTooLargeIsRefused(t *testing.T) {
	s := storetest.New(t)
	_, err := s.Propose(t.Context(), store.Txn{Ops: []store.Op{{Key: "/big", Value: make([]byte, 3<<19+1)}}})
	if !errors.Is(err, store.ErrTooLarge) {
		t.Fatalf("got %v", err)
	}
	put(t, s, "/big", string(make([]byte, 3<<19)))
}

func TestConcurrentProposalsEachHaveTheirRevision(t *testing.T) {
	s := storetest.New(t)
	var mu sync.Mutex
	seen := map[store.Revision]bool{}
	var all sync.WaitGroup
	for c := range 16 {
		all.Go(func() {
			for i := range 50 {
				res := put(t, s, fmt.Sprintf("/k/%d/%d", c, i), "v")
				mu.Lock()
				if seen[res.Revision] {
					t.Errorf("revision %d twice", res.Revision)
				}
				seen[res.Revision] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if got := s.Local().Count("/k/", ""); got != 800 {
		t.Errorf("count %d", got)
	}
}

func TestIdleStoreIsSilentAfterOneCompaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.New(t)
		time.Sleep(time.Second) // the roles are assigned
		for i := range 10 {
			put(t, s, fmt.Sprintf("/k/%d", i), "v")
		}
		old := s.Local().Revision()
		w, err := s.Watch("/k/", false, old)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
		defer cancel()
		before := s.Status()
		if _, _, err := w.Next(ctx, true); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("watch of an idle store: %v", err)
		}
		after := s.Status()
		if after.Entries != before.Entries+1 || after.Revision != before.Revision+1 {
			t.Errorf("entries %d → %d, revision %d → %d: want one compaction", before.Entries, after.Entries, before.Revision, after.Revision)
		}
		if _, err := s.At(old); !errors.Is(err, store.ErrCompacted) {
			t.Errorf("old revision after compaction: %v", err)
		}
		put(t, s, "/k/new", "v")
		if events, _, err := w.Next(t.Context(), true); err != nil || len(events) != 1 {
			t.Errorf("watch that waited through the compaction: %v, %v", events, err)
		}
	})
}

func TestHistoryEndsItsTimeAfterTheLastWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.New(t)
		time.Sleep(time.Second)
		put(t, s, "/k/first", "v")
		first := s.Local().Revision()
		time.Sleep(4 * time.Minute)
		put(t, s, "/k/last", "v")
		last := s.Local().Revision()
		time.Sleep(5*time.Minute - time.Second)
		for _, rev := range []store.Revision{first, last} {
			if _, err := s.At(rev); err != nil {
				t.Errorf("revision %d, a second before its time: %v", rev, err)
			}
		}
		time.Sleep(2 * time.Second)
		for _, rev := range []store.Revision{first, last} {
			if _, err := s.At(rev); !errors.Is(err, store.ErrCompacted) {
				t.Errorf("revision %d, a second after its time: %v", rev, err)
			}
		}
	})
}

func TestTTLExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.New(t)
		_, err := s.Propose(t.Context(), store.Txn{Ops: []store.Op{{Key: "/event", Value: []byte("x"), TTL: 60}}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Second)
		if s.Local().Get("/event") == nil {
			t.Fatal("gone before its time")
		}
		time.Sleep(2 * time.Second)
		if s.Local().Get("/event") != nil {
			t.Fatal("still there after its time")
		}
	})
}

func TestRolesGoToTheOnlyPeerAndFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.New(t)
		time.Sleep(time.Second)
		got := s.Assignments()
		if len(got) != len(role.All()) {
			t.Fatalf("assignments %v", got)
		}
		fence := role.Fence{Role: role.Scheduler, Epoch: got[1].Epoch}
		txn := store.Txn{Ops: []store.Op{{Key: "/bind", Value: []byte("x")}}, Fence: &fence}
		if _, err := s.Propose(t.Context(), txn); err != nil {
			t.Fatalf("holder's write: %v", err)
		}
		if err := s.Resign(t.Context(), role.Scheduler, fence.Epoch); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if _, err := s.Propose(t.Context(), txn); !errors.Is(err, store.ErrFenced) {
			t.Fatalf("write with an old epoch: %v", err)
		}
	})
}
