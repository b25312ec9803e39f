package raftstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/role"
	"skein.dev/skein/raftstore/fsm"
)

// Network is one kind of connection between peers. The zero value has none,
// which is enough for a store of a single peer.
type Network struct {
	// Listener yields the connections other peers made. Each must implement
	// [Identified]; one that does not is closed.
	Listener net.Listener
	// Dial connects to the peer id at address, and fails if somebody else
	// answers there. Its connections implement [Identified] too.
	Dial func(ctx context.Context, id member.ServerID, address string) (net.Conn, error)
}

// Identified is a connection that knows who is at its far end, as a
// certificate or the like has proven it.
type Identified interface {
	RemoteServerID() member.ServerID
}

// Storage is where a peer keeps what raft must not forget.
type Storage struct {
	Logs      raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	Close     func() error
}

// Timing is raft's pace. The defaults replace a dead leader within three
// seconds on a loaded machine of two cores.
type Timing struct {
	Heartbeat time.Duration // 0: one second without a heartbeat starts an election
	Election  time.Duration // 0: one second
	Lease     time.Duration // 0: 700ms without a majority end a leadership
	Report    time.Duration // 0: 500ms between a peer's reports to the leader
	Silence   time.Duration // 0: 3s without a report cost a holder its role
	Settle    time.Duration // 0: 10s for a new holder, or under a new leader, to begin reporting
	Stall     time.Duration // 0: 5s without a leader fail what waits
}

// Config says what a store needs. The zero value of a field that is not
// marked as required means its default.
type Config struct {
	// Dir is the data directory; required unless Storage and ServerID are given.
	Dir string
	// ServerID defaults to the one minted with Dir (see [ServerID]).
	ServerID member.ServerID
	// Name is the peer's name, under which it holds roles. Required.
	Name member.Name
	// Address is where other peers dial this one; empty: nobody does.
	Address string
	// Bootstrap founds a cluster of this one peer if the storage is empty.
	// Without it an empty peer waits until a leader adds it.
	Bootstrap bool
	// Declines are the roles that this peer never holds. They are what the
	// leader goes by until it is told members.
	Declines []role.Name
	// Voters is the most voters a leader aims at, 1, 3 or 5; 0: 3.
	Voters int
	// Raft and Link carry consensus, and all else the peers tell each other.
	Raft, Link Network
	// Log is nil to discard.
	Log *slog.Logger
	// Limits bound the history.
	Limits fsm.Limits
	// Timing paces elections and reports.
	Timing Timing
	// SnapshotBytes of log make a snapshot; 0: 64 MiB.
	SnapshotBytes int
	// Queue is the most proposals that may wait on this peer; 0: 4,096.
	Queue int
	// Storage replaces the files in Dir.
	Storage *Storage
}

func (c Config) withDefaults() (Config, error) {
	if c.Name == "" {
		return c, errors.New("raftstore: config: no name")
	}
	if c.Dir == "" && (c.Storage == nil || c.ServerID == "") {
		return c, errors.New("raftstore: config: no data directory")
	}
	if c.Voters = cmp.Or(c.Voters, 3); c.Voters != 1 && c.Voters != 3 && c.Voters != 5 {
		return c, fmt.Errorf("raftstore: config: %d voters, want 1, 3 or 5", c.Voters)
	}
	if (c.Raft.Listener == nil) != (c.Link.Listener == nil) {
		return c, errors.New("raftstore: config: raft and peer link need a network both or neither")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Address = cmp.Or(c.Address, "none")
	c.SnapshotBytes = cmp.Or(c.SnapshotBytes, 64<<20)
	c.Queue = cmp.Or(c.Queue, 4096)
	c.Limits.Age = cmp.Or(c.Limits.Age, 5*time.Minute)
	t := &c.Timing
	t.Heartbeat = cmp.Or(t.Heartbeat, time.Second)
	t.Election = cmp.Or(t.Election, time.Second)
	t.Lease = cmp.Or(t.Lease, 700*time.Millisecond)
	t.Report = cmp.Or(t.Report, 500*time.Millisecond)
	t.Silence = cmp.Or(t.Silence, 3*time.Second)
	t.Settle = cmp.Or(t.Settle, 10*time.Second)
	t.Stall = cmp.Or(t.Stall, 5*time.Second)
	return c, nil
}

func (c Config) raft() *raft.Config {
	r := raft.DefaultConfig()
	r.LocalID = raft.ServerID(c.ServerID)
	r.HeartbeatTimeout, r.ElectionTimeout = c.Timing.Heartbeat, c.Timing.Election
	r.LeaderLeaseTimeout = c.Timing.Lease
	// The commit push tells followers what is committed (push.go). This is
	// only for those whose push was lost or who come back to a silent mesh;
	// raft's own 50 ms made two thirds of an idle leader's CPU time.
	r.CommitTimeout = c.Timing.Heartbeat
	// Our entries hold up to 1 MiB of transactions each, so what a leader
	// packs into one message is bounded by few of them.
	r.MaxAppendEntries = 64
	// Unbuffered: what is in raft's buffer when it shuts down is never
	// answered. Our own queue batches.
	r.BatchApplyCh = false
	r.ShutdownOnRemove = false
	// Snapshots are taken by bytes of log (snapshot.go), never by count.
	r.SnapshotThreshold = 1 << 62
	r.SnapshotInterval = 24 * time.Hour
	r.NoSnapshotRestoreOnStart = true
	r.NoLegacyTelemetry = true
	r.Logger = bridge(c.Log)
	return r
}
