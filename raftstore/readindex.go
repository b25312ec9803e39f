package raftstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/store"
)

// rounds lets many reads share one confirmation. A read joins only a round
// that starts after it arrived: what an earlier one captured may be older
// than a write that was acknowledged before the read began.
type rounds struct {
	confirm func(context.Context) (uint64, error)
	limit   time.Duration
	closed  <-chan struct{}
	wake    chan struct{}

	mu   sync.Mutex // guards next
	next *round     // collects those who wait for the next to start
}

type round struct {
	done  chan struct{}
	index uint64
	err   error
}

func newRounds(limit time.Duration, closed <-chan struct{}, confirm func(context.Context) (uint64, error)) *rounds {
	return &rounds{confirm: confirm, limit: limit, closed: closed, wake: make(chan struct{}, 1)}
}

func (r *rounds) join(ctx context.Context) (uint64, error) {
	r.mu.Lock()
	if r.next == nil {
		r.next = &round{done: make(chan struct{})}
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
	one := r.next
	r.mu.Unlock()
	select {
	case <-one.done:
		return one.index, one.err
	case <-r.closed:
		return 0, store.ErrClosed
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// run holds one round after the other until ctx ends.
func (r *rounds) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		r.mu.Lock()
		one := r.next
		r.next = nil
		r.mu.Unlock()
		if one == nil {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, r.limit)
		one.index, one.err = r.confirm(limited)
		cancel()
		close(one.done)
	}
}

// Current implements [store.Store].
func (s *Store) Current(ctx context.Context) (store.View, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timing.Stall)
	defer cancel()
	for {
		changed := s.leader.changed.next()
		index, err := s.readIndex(ctx)
		if err == nil {
			err = s.waits.index(ctx, index)
		}
		if err == nil {
			s.verified.Store(true)
			return s.machine.State().View, nil
		}
		if s.isClosed() {
			return nil, store.ErrClosed
		}
		if f := s.machine.State().Frozen; f != nil {
			return nil, fmt.Errorf("read: replica is frozen: %w", f)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("read: %w", errors.Join(store.ErrNoQuorum, err))
		case <-s.closed:
			return nil, store.ErrClosed
		case <-changed:
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// readIndex is a log index that the replica must have applied to answer a
// linearizable read that has begun already.
func (s *Store) readIndex(ctx context.Context) (uint64, error) {
	if s.leader.id() == s.cfg.ServerID {
		return s.leading.join(ctx)
	}
	return s.following.join(ctx)
}

// askIndex is a follower's round.
func (s *Store) askIndex(ctx context.Context) (uint64, error) {
	leader := s.leader.id()
	if leader == "" {
		return 0, store.ErrNoQuorum
	}
	b, err := s.link.ask(ctx, leader, callReadIndex, nil)
	if err != nil {
		return 0, fmt.Errorf("ask %s for read index: %w", leader, err)
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("ask %s for read index: %w", leader, errRefused)
	}
	return binary.BigEndian.Uint64(b), nil
}

// leaderIndex is the leader's round. Raft's own VerifyLeader is no good: it
// counts non-voters, and replies that were under way before.
func (s *Store) leaderIndex(ctx context.Context) (uint64, error) {
	t := s.term.Load()
	if t == nil {
		return 0, errNotLeader
	}
	select {
	case <-t.ready:
	case <-t.over:
		return 0, errNotLeader
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if !s.leads(t) {
		return 0, errNotLeader
	}
	index := s.lastCommand(s.raft.CommitIndex())
	if err := s.confirm(ctx, t.number); err != nil {
		return 0, err
	}
	if !s.leads(t) {
		return 0, errNotLeader
	}
	return index, nil
}

// lastCommand is the last entry up to commit that the machine sees; raft's
// own entries never reach it, so nobody could wait for those.
func (s *Store) lastCommand(commit uint64) uint64 {
	applied := s.machine.State().Index
	for i := commit; i > applied; i-- {
		var l raft.Log
		if s.cache.GetLog(i, &l) != nil {
			break // compacted, so applied
		}
		if l.Type == raft.LogCommand {
			return i
		}
	}
	return applied
}

// confirm has a majority of the voters say that they know of no later term.
// A later leader needs the votes of a majority, one of whom would be among
// them and know.
func (s *Store) confirm(ctx context.Context, term uint64) error {
	voters := s.members.voters()
	need := len(voters)/2 + 1
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	said := make(chan bool, len(voters))
	for _, id := range voters {
		if id == s.cfg.ServerID {
			said <- true
			continue
		}
		go func() { said <- s.ping(ctx, id, term) }()
	}
	for yes, no := 0, 0; ; {
		if yes >= need {
			return nil
		}
		if no > len(voters)-need {
			return fmt.Errorf("%d of %d voters out of reach: %w", no, len(voters), store.ErrNoQuorum)
		}
		select {
		case ok := <-said:
			if ok {
				yes++
			} else {
				no++
			}
		case <-ctx.Done():
			return fmt.Errorf("confirm leadership: %w", errors.Join(store.ErrNoQuorum, ctx.Err()))
		}
	}
}

func (s *Store) ping(ctx context.Context, id member.ServerID, term uint64) bool {
	nonce := rand.Uint64()
	ask := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, nonce), term)
	b, err := s.link.ask(ctx, id, callPing, ask)
	return err == nil && len(b) == 16 &&
		binary.BigEndian.Uint64(b) == nonce && binary.BigEndian.Uint64(b[8:]) <= term
}

// pong answers a ping with its nonce and our term.
func (s *Store) pong(ask []byte) ([]byte, error) {
	if len(ask) != 16 {
		return nil, errRefused
	}
	return binary.BigEndian.AppendUint64(append([]byte(nil), ask[:8]...), s.raft.CurrentTerm()), nil
}
