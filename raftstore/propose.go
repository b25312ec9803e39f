package raftstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/store"
	"skein.dev/skein/raftstore/fsm"
)

// proposer holds this peer's transactions from Propose until the local
// replica has applied them, and sends them to whoever leads, again if need be.
type proposer struct {
	id    string
	boot  uint64
	limit int
	wake  chan struct{} // there is something to send

	mu      sync.Mutex // guards the fields below
	seq     uint64
	low     uint64 // no pending seq is below it
	pending map[uint64]*proposal
	bytes   int
	queue   []*proposal // of pending, to be sent
	closed  bool
}

// proposal is one transaction under way.
type proposal struct {
	seq  uint64
	item fsm.Item
	done chan fsm.Outcome // takes one

	// The rest is guarded by proposer.mu.
	gone   bool // its fate is known, or nobody waits for it any more
	flying bool // being sent
	unsure bool // was sent, and how that ended is not known
}

const (
	maxPendingBytes = 64 << 20
	maxFlights      = 4 // batches on their way to the leader at a time
)

func newProposer(id member.ServerID, boot uint64, limit int) *proposer {
	return &proposer{
		id: string(id), boot: boot, limit: limit,
		wake: make(chan struct{}, 1), pending: map[uint64]*proposal{},
	}
}

// Propose implements [store.Store].
func (s *Store) Propose(ctx context.Context, t store.Txn) (store.Result, error) {
	if err := fsm.Check(t); err != nil {
		return store.Result{}, err
	}
	if f := s.machine.State().Frozen; f != nil {
		return store.Result{}, fmt.Errorf("propose: replica is frozen: %w", f)
	}
	p, err := s.proposer.add(t)
	if err != nil {
		return store.Result{}, err
	}
	if s.leader.id() == s.cfg.ServerID {
		s.sendHere()
	} else {
		s.proposer.signal()
	}
	select {
	case o := <-p.done:
		return o.Result, o.Err
	case <-ctx.Done():
		return s.proposer.forget(p, ctx.Err())
	}
}

// add queues t. The floor it carries lets the machine forget what is done.
func (p *proposer) add(t store.Txn) (*proposal, error) {
	one := &proposal{done: make(chan fsm.Outcome, 1)}
	p.mu.Lock()
	switch {
	case p.closed:
		p.mu.Unlock()
		return nil, store.ErrClosed
	case len(p.pending) >= p.limit || p.bytes > maxPendingBytes:
		p.mu.Unlock()
		return nil, store.ErrOverloaded
	}
	one.seq = p.seq
	p.seq++
	p.pending[one.seq] = one
	for p.pending[p.low] == nil {
		p.low++
	}
	floor := p.low
	p.mu.Unlock()

	item := fsm.EncodeRequest(fsm.Request{ID: fsm.RequestID{Peer: p.id, Boot: p.boot, Seq: one.seq}, Floor: floor, Txn: t})

	p.mu.Lock()
	defer p.mu.Unlock()
	one.item = item
	if !one.gone { // Close may have come between
		p.bytes += len(item)
		p.queue = append(p.queue, one)
	}
	return one, nil
}

func (p *proposer) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// endLocked ends a proposal with its fate.
func (p *proposer) endLocked(one *proposal, o fsm.Outcome) {
	if one.gone {
		return
	}
	one.gone = true
	delete(p.pending, one.seq)
	p.bytes -= len(one.item)
	one.done <- o
}

// resolve tells whoever proposed it here what the machine made of a request.
func (p *proposer) resolve(o fsm.Outcome) {
	if o.Duplicate || o.ID.Peer != p.id || o.ID.Boot != p.boot {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.pending[o.ID.Seq]; one != nil {
		p.endLocked(one, o)
	}
}

// forget gives up waiting for one, because of cause.
func (p *proposer) forget(one *proposal, cause error) (store.Result, error) {
	p.mu.Lock()
	kind := store.ErrNoQuorum
	if one.flying || one.unsure {
		kind = store.ErrUnknown
	}
	p.endLocked(one, fsm.Outcome{Err: errors.Join(kind, cause)})
	p.mu.Unlock()
	o := <-one.done // perhaps its fate came first
	return o.Result, o.Err
}

// abandon ends all that may have been applied in entries that the replica
// never sees.
func (p *proposer) abandon() {
	p.fail(func(one *proposal) error {
		if one.flying || one.unsure {
			return store.ErrUnknown
		}
		return nil
	})
}

// fail ends those for which why gives a reason.
func (p *proposer) fail(why func(*proposal) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.pending {
		if err := why(one); err != nil {
			p.endLocked(one, fsm.Outcome{Err: err})
		}
	}
}

func (p *proposer) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.fail(func(one *proposal) error {
		if one.flying || one.unsure {
			return errors.Join(store.ErrClosed, store.ErrUnknown)
		}
		return store.ErrClosed
	})
}

// take takes a batch from the queue to send.
func (p *proposer) take() []*proposal {
	p.mu.Lock()
	defer p.mu.Unlock()
	var batch []*proposal
	size, n := 0, 0
	for ; n < len(p.queue); n++ {
		one := p.queue[n]
		if one.gone {
			continue
		}
		if len(batch) > 0 && size+len(one.item) > fsm.MaxBatch {
			break
		}
		size += len(one.item)
		one.flying = true
		batch = append(batch, one)
	}
	clear(p.queue[:n])
	p.queue = p.queue[n:]
	return batch
}

// landed puts back what of a batch still has no fate, after sending it ended
// with err. Without error it only remains to apply it here.
func (p *proposer) landed(batch []*proposal, err error) {
	refused := errors.Is(err, errNotLeader) || errors.Is(err, errUndelivered) || errors.Is(err, store.ErrOverloaded)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range batch {
		if one.gone {
			continue
		}
		if err == nil {
			one.unsure = true // until the local replica shows it
			continue
		}
		one.flying = false
		one.unsure = one.unsure || !refused
		switch {
		case errors.Is(err, store.ErrNoSpace):
			p.endLocked(one, fsm.Outcome{Err: err})
		case errors.Is(err, store.ErrOverloaded) && !one.unsure:
			p.endLocked(one, fsm.Outcome{Err: store.ErrOverloaded})
		default:
			p.queue = append(p.queue, one)
		}
	}
	if len(p.queue) > 0 {
		p.signal()
	}
}

func (p *proposer) waiting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pending) > 0
}

// send sends what is proposed here to the leader, until ctx ends.
func (s *Store) send(ctx context.Context) {
	var flights sync.WaitGroup
	defer flights.Wait()
	room := make(chan struct{}, maxFlights)
	tick := time.NewTimer(s.cfg.Timing.Stall / 10)
	defer tick.Stop()
	leaderless := time.Now()
	for {
		changed := s.leader.changed.next()
		leader := s.leader.id()
		if leader != "" {
			leaderless = time.Now()
		} else if time.Since(leaderless) > s.cfg.Timing.Stall {
			s.proposer.fail(because(store.ErrNoQuorum))
		}
		if (leader == "" || leader == s.cfg.ServerID) && s.disk.full.Load() {
			s.proposer.fail(because(store.ErrNoSpace)) // nobody else's disk can help
		}
		if leader == s.cfg.ServerID {
			s.sendHere()
			leader = ""
		}
		for leader != "" {
			select {
			case room <- struct{}{}:
			case <-ctx.Done():
				return
			}
			batch := s.proposer.take()
			if len(batch) == 0 {
				<-room
				break
			}
			flights.Go(func() {
				s.fly(ctx, leader, batch)
				<-room
			})
		}
		if s.proposer.waiting() {
			tick.Reset(s.cfg.Timing.Stall / 10)
		} else {
			tick.Stop()
			leaderless = time.Now()
		}
		select {
		case <-ctx.Done():
			return
		case <-s.proposer.wake:
		case <-changed:
		case <-tick.C:
		}
	}
}

// because fails a proposal for a reason that also keeps all others waiting.
func because(reason error) func(*proposal) error {
	return func(one *proposal) error {
		if one.flying || one.unsure {
			return errors.Join(store.ErrUnknown, reason)
		}
		return reason
	}
}

// sendHere commits what is proposed here on this peer, which leads.
func (s *Store) sendHere() {
	batch := s.proposer.take()
	if len(batch) == 0 {
		return
	}
	s.committer.enqueue(itemsOf(batch), func(err error) {
		if err == nil {
			s.proposer.landed(batch, err)
			return
		}
		time.AfterFunc(pauseAfterFailure, func() { s.proposer.landed(batch, err) })
	})
}

func itemsOf(batch []*proposal) []fsm.Item {
	items := make([]fsm.Item, len(batch))
	for i, one := range batch {
		items[i] = one.item
	}
	return items
}

const pauseAfterFailure = 20 * time.Millisecond

// fly sends one batch to another peer, and has what must be sent again queued
// after a pause.
func (s *Store) fly(ctx context.Context, leader member.ServerID, batch []*proposal) {
	call, cancel := context.WithTimeout(ctx, 4*s.cfg.Timing.Election)
	defer cancel()
	changed := s.leader.changed.next()
	err := s.forward(call, leader, itemsOf(batch))
	if err != nil {
		select {
		case <-changed:
		case <-time.After(pauseAfterFailure):
		case <-ctx.Done():
		}
	}
	s.proposer.landed(batch, err)
}
