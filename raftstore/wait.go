package raftstore

import (
	"context"
	"fmt"
	"sync"

	"skein.dev/skein/api/store"
	"skein.dev/skein/raftstore/fsm"
)

// signal wakes all who wait at once, like a condition that can be selected on.
type signal struct {
	mu sync.Mutex // guards ch
	ch chan struct{}
}

func newSignal() *signal { return &signal{ch: make(chan struct{})} }

// next returns a channel that is closed at the next raise.
func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ch
}

func (s *signal) raise() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.ch)
	s.ch = make(chan struct{})
}

// waits are those who wait for the replica to reach a log index or revision.
// They are few (reads share theirs), so an unordered set does.
type waits struct {
	machine *fsm.Machine
	closed  <-chan struct{}

	mu  sync.Mutex // guards all
	all map[*waiter]struct{}
}

type waiter struct {
	done func(*fsm.State) bool
	ch   chan struct{}
}

func newWaits(m *fsm.Machine, closed <-chan struct{}) *waits {
	return &waits{machine: m, closed: closed, all: map[*waiter]struct{}{}}
}

func (w *waits) reached(s *fsm.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for one := range w.all {
		if s.Frozen != nil || one.done(s) {
			close(one.ch)
			delete(w.all, one)
		}
	}
}

func (w *waits) index(ctx context.Context, index uint64) error {
	return w.until(ctx, func(s *fsm.State) bool { return s.Index >= index })
}

func (w *waits) revision(ctx context.Context, rev store.Revision) error {
	return w.until(ctx, func(s *fsm.State) bool { return s.Revision() >= rev })
}

func (w *waits) until(ctx context.Context, done func(*fsm.State) bool) error {
	for {
		if done(w.machine.State()) {
			return nil
		}
		one := &waiter{done: done, ch: make(chan struct{})}
		w.mu.Lock()
		w.all[one] = struct{}{}
		w.mu.Unlock()
		if s := w.machine.State(); done(s) || s.Frozen != nil {
			w.drop(one)
			if done(s) {
				return nil
			}
			return fmt.Errorf("replica is frozen: %w", s.Frozen)
		}
		select {
		case <-one.ch:
		case <-w.closed:
			w.drop(one)
			return store.ErrClosed
		case <-ctx.Done():
			w.drop(one)
			return fmt.Errorf("wait for replica: %w", ctx.Err())
		}
	}
}

func (w *waits) drop(one *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, one)
}
