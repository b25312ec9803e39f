package raftstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/store"
	"skein.dev/skein/raftstore/fsm"
)

// committer puts items of all peers into the log while this peer leads.
// Those that arrive while entries are on their way share the next entry. It
// has no goroutine that would have to be woken: who brings an item, or sees
// an entry through, starts the next one.
type committer struct {
	raft  *raft.Raft
	state func() *fsm.State
	clock *meshClock
	all   sync.WaitGroup // of entries on their way

	mu      sync.Mutex // guards the fields below
	queue   []submission
	bytes   int
	flights int
	closed  bool
}

type submission struct {
	items []fsm.Item
	size  int
	done  func(error) // called once; must not block
}

const (
	maxEntries     = 3        // entries of ours in raft at a time
	maxQueuedBytes = 64 << 20 // then the leader is overloaded
)

// enqueue calls done when the items are applied on this peer, which leads.
// An errNotLeader or ErrOverloaded says they are not in the log.
func (c *committer) enqueue(items []fsm.Item, done func(error)) {
	sub := submission{items: items, done: done}
	for _, it := range items {
		sub.size += len(it)
	}
	c.mu.Lock()
	var refuse error
	if c.closed {
		refuse = store.ErrClosed
	} else if c.bytes > maxQueuedBytes {
		refuse = store.ErrOverloaded
	}
	if refuse != nil {
		c.mu.Unlock()
		done(refuse)
		return
	}
	c.queue = append(c.queue, sub)
	c.bytes += sub.size
	c.mu.Unlock()
	c.pump()
}

// close refuses what comes and ends what waits; what is on its way ends with
// raft.
func (c *committer) close() {
	c.mu.Lock()
	c.closed = true
	queue := c.queue
	c.queue = nil
	c.mu.Unlock()
	for _, sub := range queue {
		sub.done(store.ErrClosed)
	}
}

// submit is enqueue for who can wait.
func (c *committer) submit(ctx context.Context, items []fsm.Item) error {
	done := make(chan error, 1)
	c.enqueue(items, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("commit: %w", errors.Join(store.ErrUnknown, ctx.Err()))
	}
}

// take takes the next entry's worth from the queue, if one may start.
func (c *committer) take() []submission {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.flights >= maxEntries || len(c.queue) == 0 {
		return nil
	}
	size, n := 0, 0
	for n < len(c.queue) && (n == 0 || size+c.queue[n].size <= fsm.MaxBatch) {
		size += c.queue[n].size
		n++
	}
	batch := append([]submission(nil), c.queue[:n]...)
	clear(c.queue[:n])
	c.queue = c.queue[n:]
	c.bytes -= size
	c.flights++
	return batch
}

// pump starts entries until enough are on their way.
func (c *committer) pump() {
	for {
		batch := c.take()
		if batch == nil {
			return
		}
		var items []fsm.Item
		for _, sub := range batch {
			items = append(items, sub.items...)
		}
		entry := fsm.Encode(c.state().Level, c.clock.now(), items...)
		c.all.Go(func() { // raft takes it when its disk is done with the last one
			f := c.raft.Apply(entry, 5*time.Second)
			err := f.Error()
			if err == nil {
				if a, ok := f.Response().(fsm.Applied); ok {
					err = a.Err
				}
			}
			err = raftError(err)
			for _, sub := range batch {
				sub.done(err)
			}
			c.mu.Lock()
			c.flights--
			c.mu.Unlock()
			c.pump()
		})
	}
}

// raftError says in the contract's words what raft said.
func raftError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("commit: %w", errNotLeader)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("commit: %w", store.ErrOverloaded)
	case errors.Is(err, raft.ErrRaftShutdown):
		return fmt.Errorf("commit: %w", errors.Join(store.ErrClosed, store.ErrUnknown))
	case noSpace(err):
		return fmt.Errorf("commit: %w", store.ErrNoSpace)
	default:
		return fmt.Errorf("commit: %w: %w", store.ErrUnknown, err)
	}
}

// meshClock is the time that the leader writes into entries: it goes on from
// where the last leader's entries left it, by this peer's monotonic clock, so
// that no step of a wall clock expires anything.
type meshClock struct {
	base  atomic.Int64
	start atomic.Pointer[time.Time]
}

func (c *meshClock) begin(base int64) {
	now := time.Now()
	c.base.Store(base)
	c.start.Store(&now)
}

func (c *meshClock) now() int64 {
	start := c.start.Load()
	if start == nil {
		return 0
	}
	return c.base.Load() + int64(time.Since(*start))
}

// forward has the leader commit items of this peer.
func (s *Store) forward(ctx context.Context, leader member.ServerID, items []fsm.Item) error {
	size := 0
	for _, it := range items {
		size += len(it) + binary.MaxVarintLen32
	}
	payload := make([]byte, 0, size)
	for _, it := range items {
		payload = append(binary.AppendUvarint(payload, uint64(len(it))), it...)
	}
	_, err := s.link.ask(ctx, leader, callPropose, payload)
	return err
}

// commitFor commits the items of another peer. They must be its own: a peer
// cannot speak for another.
func (s *Store) commitFor(ctx context.Context, from member.ServerID, payload []byte) error {
	var items []fsm.Item
	for len(payload) > 0 {
		n, w := binary.Uvarint(payload)
		if w <= 0 || n > uint64(len(payload)-w) {
			return fmt.Errorf("%w: malformed proposal", errRefused)
		}
		it := fsm.Item(payload[w : w+int(n)])
		payload = payload[w+int(n):]
		id, err := fsm.RequestOf(it)
		if err != nil || id.Peer != string(from) {
			return fmt.Errorf("%w: proposal of %q from %q", errRefused, id.Peer, from)
		}
		items = append(items, it)
	}
	if s.leader.id() != s.cfg.ServerID {
		return errNotLeader
	}
	return s.committer.submit(ctx, items)
}
