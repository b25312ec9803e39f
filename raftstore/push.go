package raftstore

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// pusher tells followers the commit index as soon as it moves. Raft itself
// tells it with the next entry or after CommitTimeout, so that a lone write
// would wait for up to 100 ms on every follower.
type pusher struct {
	index, term atomic.Uint64
	wake        chan struct{}
}

// committed notes an entry that this peer applied.
func (p *pusher) committed(index, term uint64) {
	p.term.Store(term)
	p.index.Store(index)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

const (
	pushRetry    = 100 * time.Microsecond
	pushAttempts = 10
)

// push runs for one term of this peer's leadership, until ctx ends.
func (s *Store) push(ctx context.Context, term uint64) {
	var mu sync.Mutex // guards busy
	busy := map[raft.ServerID]bool{}
	var flights sync.WaitGroup
	defer flights.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.pusher.wake:
		}
		for _, srv := range s.members.servers() {
			if srv.ID == raft.ServerID(s.cfg.ServerID) {
				continue
			}
			mu.Lock()
			skip := busy[srv.ID]
			busy[srv.ID] = true
			mu.Unlock()
			if skip {
				continue // it looks at the index again before it ends
			}
			flights.Go(func() {
				for told := uint64(0); ctx.Err() == nil; {
					index := s.pusher.index.Load()
					mu.Lock()
					if index == told {
						busy[srv.ID] = false
						mu.Unlock()
						return
					}
					mu.Unlock()
					told = index
					s.pushTo(ctx, srv, term, index)
				}
			})
		}
	}
}

// pushTo sends one follower an AppendEntries of no entries. A follower that
// does not have the entry yet (others made the majority) rejects it, and gets
// it again a little later.
func (s *Store) pushTo(ctx context.Context, srv raft.Server, term, index uint64) {
	if s.pusher.term.Load() != term {
		return // an entry of an earlier term: raft commits those with ours
	}
	self := raft.ServerID(s.cfg.ServerID)
	addr := s.trans.EncodePeer(self, s.trans.LocalAddr())
	req := raft.AppendEntriesRequest{
		RPCHeader:    raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(self), Addr: addr},
		Term:         term,
		Leader:       addr, //nolint:staticcheck // peers on an older raft still read it
		PrevLogEntry: index, PrevLogTerm: term, LeaderCommitIndex: index,
	}
	for attempt := range pushAttempts {
		var resp raft.AppendEntriesResponse
		err := s.trans.AppendEntries(srv.ID, srv.Address, &req, &resp)
		if err != nil || resp.Success || resp.Term > term {
			return // raft's heartbeats deal with what is out of reach
		}
		if s.pusher.index.Load() != index && attempt > 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pushRetry << attempt):
		}
	}
}
