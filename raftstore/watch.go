package raftstore

import (
	"context"
	"strings"
	"sync"

	"skein.dev/skein/api/store"
	"skein.dev/skein/raftstore/fsm"
)

// hub wakes the watches that an applied entry concerns. Watches that wait are
// kept by the first segments of their prefix, so that an event on Pods costs
// nothing to a thousand watches on ConfigMaps.
type hub struct {
	machine *fsm.Machine

	mu      sync.Mutex // guards the fields below and what waiting cursors say of it
	waiting map[string]map[*cursor]struct{}
	through store.Revision // all waiting cursors have been held against events up to here
	closed  bool
}

func newHub(m *fsm.Machine) *hub {
	return &hub{machine: m, waiting: map[string]map[*cursor]struct{}{}}
}

// bucket is s through its third slash, "/registry/pods/"; "" if it has less.
func bucket(s string) string {
	rest, end := s, 0
	for range 3 {
		i := strings.IndexByte(rest, '/')
		if i < 0 {
			return ""
		}
		end += i + 1
		rest = rest[i+1:]
	}
	return s[:end]
}

// publish wakes who waits for a. It runs after the machine shows a.
func (h *hub) publish(a fsm.Applied) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.through = h.machine.State().Revision()
	if a.Reset {
		h.wakeAllLocked()
		return
	}
	if len(h.waiting) == 0 {
		return
	}
	for _, e := range a.Events {
		b := bucket(e.Key)
		h.wakeLocked(b, e)
		if b != "" {
			h.wakeLocked("", e)
		}
	}
}

// wakeLocked wakes a bucket's cursors that select e. Nothing they select came
// before e since they began to wait, so they go on right before it.
func (h *hub) wakeLocked(b string, e *store.Event) {
	for c := range h.waiting[b] {
		if c.sel.Match(e.Key) {
			c.rev = max(c.rev, e.Revision-1)
			h.removeLocked(c)
			close(c.woken)
		}
	}
}

func (h *hub) wakeAllLocked() {
	for _, set := range h.waiting {
		for c := range set {
			close(c.woken)
		}
	}
	clear(h.waiting)
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.wakeAllLocked()
}

func (h *hub) removeLocked(c *cursor) {
	set := h.waiting[c.bucket]
	delete(set, c)
	if len(set) == 0 {
		delete(h.waiting, c.bucket)
	}
}

// cursor is a place in the history. It implements [store.Watch].
type cursor struct {
	hub    *hub
	sel    fsm.Selector
	bucket string
	ended  chan struct{}
	end    sync.Once

	next  sync.Mutex     // one Next at a time
	rev   store.Revision // seen through here; guarded by next, and by hub.mu while waiting
	woken chan struct{}
}

// Watch implements [store.Store].
func (s *Store) Watch(prefix string, exact bool, rev store.Revision) (store.Watch, error) {
	c := &cursor{
		hub: s.hub, sel: fsm.Selector{Prefix: prefix, Exact: exact},
		bucket: bucket(prefix), ended: make(chan struct{}), rev: rev,
	}
	if _, _, err := s.machine.Events(c.sel, rev); err != nil {
		return nil, err
	}
	return c, nil
}

// Next implements [store.Watch].
func (c *cursor) Next(ctx context.Context, wait bool) ([]*store.Event, store.Revision, error) {
	c.next.Lock()
	defer c.next.Unlock()
	for {
		select {
		case <-c.ended:
			return nil, c.rev, store.ErrClosed
		default:
		}
		events, through, err := c.hub.machine.Events(c.sel, c.rev)
		if err != nil {
			return nil, c.rev, err
		}
		moved := through > c.rev
		c.rev = through
		if len(events) > 0 || (!wait && !moved) {
			return events, through, nil
		}
		if moved {
			continue // there may be more: Events looks at so much at a time
		}
		if err := c.wait(ctx); err != nil {
			return nil, c.rev, err
		}
	}
}

// wait blocks until something selected may have come.
func (c *cursor) wait(ctx context.Context) error {
	h := c.hub
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return store.ErrClosed
	}
	if h.machine.State().Revision() > c.rev {
		h.mu.Unlock()
		return nil
	}
	c.woken = make(chan struct{})
	if h.waiting[c.bucket] == nil {
		h.waiting[c.bucket] = map[*cursor]struct{}{}
	}
	h.waiting[c.bucket][c] = struct{}{}
	h.mu.Unlock()

	var err error
	select {
	case <-c.woken:
		return nil
	case <-c.ended:
		err = store.ErrClosed
	case <-ctx.Done():
		err = ctx.Err()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-c.woken: // it has set rev already
	default:
		h.removeLocked(c)
		c.rev = max(c.rev, h.through) // else history would pass a watch that waits, not lags
	}
	return err
}

// Close implements [store.Watch].
func (c *cursor) Close() { c.end.Do(func() { close(c.ended) }) }
