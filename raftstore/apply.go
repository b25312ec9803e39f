package raftstore

import (
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"skein.dev/skein/raftstore/fsm"
)

// replica is the machine as raft drives it: it applies, then tells whoever
// waits for what was applied. It implements [raft.BatchingFSM].
type replica struct {
	machine  *fsm.Machine
	proposer *proposer
	waits    *waits
	hub      *hub
	expiry   *expiry
	pusher   *pusher
	roles    *signal
}

// Apply implements [raft.FSM].
func (r *replica) Apply(l *raft.Log) any { return r.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements [raft.BatchingFSM]. What raft replays of what the
// peer recalled when it opened is skipped by the machine.
func (r *replica) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	for i, l := range logs {
		if l.Type != raft.LogCommand {
			continue
		}
		a := r.machine.Apply(l.Index, l.Data)
		out[i] = a
		r.hub.publish(a)
		r.expiry.add(a.Events)
		for _, o := range a.Outcomes {
			r.proposer.resolve(o)
		}
		if a.Roles {
			r.roles.raise()
		}
	}
	last := logs[len(logs)-1]
	r.pusher.committed(last.Index, last.Term)
	r.waits.reached(r.machine.State())
	return out
}

// Snapshot implements [raft.FSM].
func (r *replica) Snapshot() (raft.FSMSnapshot, error) {
	s, err := r.machine.Snapshot()
	if err != nil {
		return nil, err
	}
	return persisted{s}, nil
}

// Restore implements [raft.FSM]: a leader sent a snapshot. What waited here
// for entries that the snapshot jumped over cannot learn its fate.
func (r *replica) Restore(in io.ReadCloser) error {
	defer func() { _ = in.Close() }()
	before := r.machine.State()
	if err := r.machine.Restore(in); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	if after := r.machine.State(); after != before {
		r.proposer.abandon()
		r.hub.publish(fsm.Applied{Reset: true})
		r.roles.raise()
		r.waits.reached(after)
	}
	return nil
}

type persisted struct{ *fsm.Snapshot }

// Persist implements [raft.FSMSnapshot].
func (p persisted) Persist(sink raft.SnapshotSink) error {
	if err := p.Write(sink); err != nil {
		_ = sink.Cancel()
		return err
	}
	return sink.Close()
}

// Release implements [raft.FSMSnapshot].
func (persisted) Release() {}
