package raftstore

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/role"
	"skein.dev/skein/api/store"
)

// report is what each peer tells the leader every half second, outside the
// log: how far it is, what its data hash to, which roles make progress.
type report struct {
	Last        uint64         `json:"last"` // of the log
	Applied     uint64         `json:"applied"`
	Revision    store.Revision `json:"revision"`
	Hash        uint64         `json:"hash"`
	Incarnation string         `json:"incarnation,omitempty"`
	Progress    []role.Fence   `json:"progress,omitempty"`
}

// progress collects what holders on this peer report between two reports.
type progress struct {
	mu   sync.Mutex // guards made
	made map[role.Fence]struct{}
}

func (p *progress) note(name role.Name, epoch uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.made == nil {
		p.made = map[role.Fence]struct{}{}
	}
	p.made[role.Fence{Role: name, Epoch: epoch}] = struct{}{}
}

func (p *progress) take() []role.Fence {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []role.Fence
	for f := range p.made {
		out = append(out, f)
	}
	p.made = nil
	return out
}

// reports is what the leader heard in its term.
type reports struct {
	news *signal

	mu       sync.Mutex // guards the fields below
	by       map[member.ServerID]heard
	progress map[role.Fence]time.Time
	resigned map[role.Name]map[member.Name]resignation
	diverged map[member.ServerID]bool
}

// heard is one peer's last report.
type heard struct {
	report
	since, at time.Time // since when without a gap, and when last
	commit    uint64    // the leader's commit index when it came
}

func newReports() *reports {
	r := &reports{news: newSignal()}
	r.clear()
	return r
}

func (r *reports) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.by = map[member.ServerID]heard{}
	r.progress = map[role.Fence]time.Time{}
	r.resigned = map[role.Name]map[member.Name]resignation{}
	r.diverged = map[member.ServerID]bool{}
}

func (r *reports) add(from member.ServerID, rep report, commit uint64, gap time.Duration) {
	now := time.Now()
	r.mu.Lock()
	h := heard{report: rep, since: now, at: now, commit: commit}
	if old, ok := r.by[from]; ok && now.Sub(old.at) < gap {
		h.since = old.since
	}
	r.by[from] = h
	for _, f := range rep.Progress {
		r.progress[f] = now
	}
	r.mu.Unlock()
	r.news.raise()
}

func (r *reports) resign(f role.Fence, who member.Name) {
	r.mu.Lock()
	if r.resigned[f.Role] == nil {
		r.resigned[f.Role] = map[member.Name]resignation{}
	}
	r.resigned[f.Role][who] = resignation{epoch: f.Epoch, at: time.Now()}
	r.mu.Unlock()
	r.news.raise()
}

// nearly is how many entries behind the leader's commit a log counts as
// caught up: raft sends that many in one message or two.
const nearly = 256

// caughtUp are the peers that reported within age and are not behind.
func (r *reports) caughtUp(age time.Duration) map[member.ServerID]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[member.ServerID]bool{}
	for id, h := range r.by {
		out[id] = time.Since(h.at) < age && h.Last+nearly >= h.commit && h.Applied > 0
	}
	return out
}

// report reports to the leader until ctx ends.
func (s *Store) report(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Timing.Report)
	defer tick.Stop()
	for {
		changed := s.leader.changed.next()
		if leader := s.leader.id(); leader != "" {
			s.reportTo(ctx, leader)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-changed:
		}
	}
}

func (s *Store) reportTo(ctx context.Context, leader member.ServerID) {
	st := s.machine.State()
	made := s.progress.take()
	rep := report{
		Last: s.raft.LastIndex(), Applied: st.Index, Revision: st.Revision(), Hash: st.Hash,
		Incarnation: st.Incarnation, Progress: made,
	}
	var err error
	if leader == s.cfg.ServerID {
		err = s.heard(ctx, leader, rep)
	} else {
		var b []byte
		if b, err = json.Marshal(rep); err == nil {
			ctx, cancel := context.WithTimeout(ctx, s.cfg.Timing.Report)
			defer cancel()
			_, err = s.link.ask(ctx, leader, callReport, b)
		}
	}
	if err != nil { // the progress was made all the same
		for _, f := range made {
			s.progress.note(f.Role, f.Epoch)
		}
	}
}

// heard is the leader's side of a report.
func (s *Store) heard(ctx context.Context, from member.ServerID, rep report) error {
	if s.term.Load() == nil {
		return errNotLeader
	}
	s.reports.add(from, rep, s.raft.CommitIndex(), 2*s.cfg.Timing.Silence)
	if hash, ok := s.machine.HashAt(rep.Revision); ok && hash != rep.Hash && rep.Incarnation == s.machine.State().Incarnation {
		s.reports.mu.Lock()
		told := s.reports.diverged[from]
		s.reports.diverged[from] = true
		s.reports.mu.Unlock()
		if !told {
			s.log.ErrorContext(ctx, "a peer's data differ from the leader's",
				"server", string(from), "revision", int64(rep.Revision),
				"want", fmt.Sprintf("%016x", hash), "got", fmt.Sprintf("%016x", rep.Hash))
		}
	}
	return nil
}
