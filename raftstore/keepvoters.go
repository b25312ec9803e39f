package raftstore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"skein.dev/skein/api/member"
)

// keepVoters brings raft's configuration to what the members ask for, one
// change at a time, while this peer leads.
func (s *Store) keepVoters(ctx context.Context, t *term) {
	select {
	case <-t.ready:
	case <-ctx.Done():
		return
	}
	for {
		members, reports := s.members.change(), s.reports.news.next()
		e := electorate{
			members: s.members.all(), servers: s.members.servers(),
			leader: s.cfg.ServerID, most: s.cfg.Voters,
			caughtUp: s.reports.caughtUp(3 * s.cfg.Timing.Report),
		}
		e.caughtUp[s.cfg.ServerID] = true
		if c := e.next(); c != (change{}) {
			err := s.change(c)
			if err == nil {
				s.log.InfoContext(ctx, "changed the store's servers", "change", string(c.verb), "server", string(c.id))
				continue
			}
			s.log.WarnContext(ctx, "could not change the store's servers",
				"change", string(c.verb), "server", string(c.id), "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-members:
		case <-reports:
		}
	}
}

func (s *Store) change(c change) error {
	id := raft.ServerID(c.id)
	addr, _ := s.members.address(c.id)
	at := raftAddress(c.id, addr)
	var f raft.Future
	switch c.verb {
	case addNonvoter:
		f = s.raft.AddNonvoter(id, at, 0, 5*time.Second)
	case promote:
		f = s.raft.AddVoter(id, at, 0, 5*time.Second)
	case readdress:
		if slices.Contains(s.members.voters(), c.id) {
			f = s.raft.AddVoter(id, at, 0, 5*time.Second)
		} else {
			f = s.raft.AddNonvoter(id, at, 0, 5*time.Second)
		}
	case demote:
		f = s.raft.DemoteVoter(id, 0, 5*time.Second)
	case remove:
		f = s.raft.RemoveServer(id, 0, 5*time.Second)
	case transfer:
		f = s.raft.LeadershipTransferToServer(id, at)
	}
	if err := f.Error(); err != nil {
		return fmt.Errorf("%s %s: %w", c.verb, c.id, err)
	}
	return nil
}

// TransferLeadership hands the lead of the store to another voter, as a peer
// does before it restarts. Without another voter, or when another leads, it
// does nothing.
func (s *Store) TransferLeadership() error {
	if s.raft.State() != raft.Leader {
		return nil
	}
	caught := s.reports.caughtUp(3 * s.cfg.Timing.Report)
	var heir member.ServerID
	for _, id := range s.members.voters() {
		if id != s.cfg.ServerID && (heir == "" || caught[id]) {
			heir = id
		}
	}
	if heir == "" {
		return nil
	}
	return s.change(change{transfer, heir})
}
