package raftstore

import (
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/store"
)

// Status is what one peer knows of the store, for `skein status`, metrics and
// benchmarks. All figures are of this peer.
type Status struct {
	ServerID      member.ServerID `json:"serverID"`
	Leader        member.ServerID `json:"leader"`
	LeaderName    member.Name     `json:"leaderName"`
	LeaderAddress string          `json:"leaderAddress"`
	State         string          `json:"state"` // Leader, Follower, Candidate, Shutdown
	Term          uint64          `json:"term"`
	Last          uint64          `json:"last"`
	Committed     uint64          `json:"committed"`
	Applied       uint64          `json:"applied"`
	Revision      store.Revision  `json:"revision"`
	Oldest        store.Revision  `json:"oldest"`
	Keys          int             `json:"keys"`
	// Quorum says that this peer heard of a leader within an election's time,
	// or leads itself and holds a majority.
	Quorum      bool              `json:"quorum"`
	Verified    bool              `json:"verified"`
	Voters      []member.ServerID `json:"voters"`
	Nonvoters   []member.ServerID `json:"nonvoters"`
	Incarnation string            `json:"incarnation"`
	Hash        string            `json:"hash"`
	// Diverged are peers whose data differed from this leader's.
	Diverged []member.ServerID `json:"diverged,omitempty"`
	Frozen   string            `json:"frozen,omitempty"`
	// Appends are writes to the log since start, Entries and Bytes what was
	// in them. All stand still on an idle mesh.
	Appends uint64 `json:"appends"`
	Entries uint64 `json:"entries"`
	Bytes   uint64 `json:"bytes"`
}

// Status returns what the peer knows now; it asks nobody.
func (s *Store) Status() Status {
	st := s.machine.State()
	out := Status{
		ServerID: s.cfg.ServerID, Leader: s.leader.id(), State: s.raft.State().String(),
		Term: s.raft.CurrentTerm(), Last: s.raft.LastIndex(), Committed: s.raft.CommitIndex(),
		Applied: st.Index, Revision: st.Revision(), Oldest: s.machine.Oldest(), Keys: st.Len(),
		Verified: s.Verified(), Incarnation: st.Incarnation, Hash: fmt.Sprintf("%016x", st.Hash),
		Appends: s.disk.appends.Load(), Entries: s.disk.entries.Load(), Bytes: s.disk.bytes.Load(),
	}
	for _, srv := range s.members.servers() {
		if srv.Suffrage == raft.Voter {
			out.Voters = append(out.Voters, member.ServerID(srv.ID))
		} else {
			out.Nonvoters = append(out.Nonvoters, member.ServerID(srv.ID))
		}
	}
	if out.Leader != "" {
		out.LeaderName, _ = s.members.name(out.Leader)
		out.LeaderAddress, _ = s.members.address(out.Leader)
		out.Quorum = out.Leader == s.cfg.ServerID || time.Since(s.raft.LastContact()) < 2*s.cfg.Timing.Heartbeat
	}
	if st.Frozen != nil {
		out.Frozen = st.Frozen.Error()
	}
	s.reports.mu.Lock()
	defer s.reports.mu.Unlock()
	for id := range s.reports.diverged {
		out.Diverged = append(out.Diverged, id)
	}
	slices.Sort(out.Diverged)
	return out
}

// ServerID is this peer's id.
func (s *Store) ServerID() member.ServerID { return s.cfg.ServerID }

// Incarnation is the cluster's, which peers compare in their handshake; empty
// until a cluster was founded or joined.
func (s *Store) Incarnation() string { return s.machine.State().Incarnation }

// LeaderChanged returns a channel that is closed when another peer leads the
// store, or none.
func (s *Store) LeaderChanged() <-chan struct{} { return s.leader.changed.next() }
