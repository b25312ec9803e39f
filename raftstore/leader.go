package raftstore

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"skein.dev/skein/api/member"
	"skein.dev/skein/raftstore/fsm"
)

// leaderOf tells who leads, as this peer knows it.
type leaderOf struct {
	raft    *raft.Raft
	changed *signal
}

// id is empty when no leader is known.
func (l *leaderOf) id() member.ServerID {
	_, id := l.raft.LeaderWithID()
	return member.ServerID(id)
}

// term is one time that this peer leads.
type term struct {
	number uint64
	begun  time.Time
	ready  chan struct{} // closed when the commit index is known to be this term's
	over   <-chan struct{}
}

// leads reports whether t still is the present.
func (s *Store) leads(t *term) bool {
	return s.raft.State() == raft.Leader && s.raft.CurrentTerm() == t.number
}

// lead does what only the leader does, each time this peer leads, until ctx
// ends.
func (s *Store) lead(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case yes := <-s.notify:
			for yes {
				yes = s.reign(ctx)
			}
			if ctx.Err() != nil {
				return
			}
		}
	}
}

// reign lasts from the news that this peer leads to the next news, which it
// returns.
func (s *Store) reign(ctx context.Context) bool {
	inner, cancel := context.WithCancel(ctx)
	t := &term{number: s.raft.CurrentTerm(), begun: time.Now(), ready: make(chan struct{}), over: inner.Done()}
	s.clock.begin(s.machine.State().Clock)
	s.reports.clear()
	s.term.Store(t)
	s.log.InfoContext(ctx, "leads the store", "term", t.number)
	s.pace(ctx, calm)
	var duties sync.WaitGroup
	for _, duty := range []func(context.Context, *term){
		s.begin,
		func(ctx context.Context, t *term) { s.push(ctx, t.number) },
		s.keepVoters,
		s.keepRoles,
	} {
		duties.Go(func() { duty(inner, t) })
	}
	duties.Go(func() {
		select {
		case <-t.ready:
		case <-inner.Done():
			return
		}
		duties.Go(func() { s.expire(inner) })
		s.keepCompact(inner)
	})
	yes := false
	select {
	case yes = <-s.notify:
	case <-ctx.Done():
	}
	s.pace(ctx, 1)
	cancel()
	s.term.Store(nil)
	duties.Wait()
	s.log.InfoContext(ctx, "leads the store no more", "term", t.number)
	return yes
}

// calm stretches the time between a leader's heartbeats.
const calm = 1.5

// pace sets how patient raft is here, as a multiple of the configured time.
// Raft sends heartbeats every tenth to fifth of the very time that it waits
// for them as a follower. A leader waits for none: with more patience it sends
// fewer, 4 or 5 in a second instead of 6 or 7, each a message there and back to every
// follower, and still two before its lease is over. As a follower it must be
// as patient as the others again.
func (s *Store) pace(ctx context.Context, times float64) {
	err := s.reload(func(rc *raft.ReloadableConfig) {
		rc.HeartbeatTimeout = time.Duration(times * float64(s.cfg.Timing.Heartbeat))
		rc.ElectionTimeout = max(s.cfg.Timing.Election, rc.HeartbeatTimeout)
	})
	if err != nil {
		s.log.WarnContext(ctx, "heartbeats keep their pace", "err", err)
	}
}

// begin makes the term's commit index known with a barrier, after which all
// that earlier leaders committed is applied here; and founds the cluster if
// this is its very first leader.
func (s *Store) begin(ctx context.Context, t *term) {
	for s.raft.Barrier(time.Second).Error() != nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
	if ctx.Err() != nil {
		return
	}
	s.clock.begin(s.machine.State().Clock)
	close(t.ready)
	if s.machine.State().Incarnation == "" {
		s.command(ctx, fsm.Command{Recover: &fsm.Recover{Incarnation: newIncarnation()}})
	}
}

// command commits one of the leader's own commands. Losing it is no harm: the
// duty that wanted it looks again.
func (s *Store) command(ctx context.Context, c fsm.Command) {
	if err := s.committer.submit(ctx, []fsm.Item{fsm.EncodeCommand(c)}); err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "command of the store leader was not committed", "err", err)
	}
}

// keepCompact ends each burst of writes with one compaction entry, when the
// last write is as old as history lasts: what comes after is silence. It is not
// put off by the burst itself, in which writes drop what is too old.
func (s *Store) keepCompact(ctx context.Context) {
	for ctx.Err() == nil {
		st := s.machine.State()
		if st.Revision() == st.Compacted {
			if s.waits.revision(ctx, st.Revision()+1) != nil {
				return // ctx has ended, or the store is closed
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(s.cfg.Limits.Age - time.Duration(s.clock.now()-st.Clock)):
			if s.machine.State().Revision() == st.Revision() {
				s.command(ctx, fsm.Command{Compact: &fsm.Compact{Expect: st.Revision()}})
			}
		}
	}
}
