package raftstore

import (
	"cmp"
	"slices"
	"time"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/role"
	"skein.dev/skein/raftstore/fsm"
)

// roleBook is what the assignment of roles depends on.
type roleBook struct {
	now    time.Time
	begun  time.Time // of the leader's term
	timing Timing
	leader member.Name
	peers  []rolePeer
	held   map[role.Name]tenure
}

// rolePeer is a full peer that may hold roles.
type rolePeer struct {
	name member.Name
	dead bool // confirmed dead, or leaving
	// declines are the roles it is not given.
	declines []role.Name
	// reporting is since when it reports without a gap, heard when it last
	// did; both zero if it has not in this term.
	reporting, heard time.Time
}

// tenure is one role's assignment, as the leader has observed it.
type tenure struct {
	assigned role.Assignment
	since    time.Time // when this leader first saw the assignment
	progress time.Time // when its holder last reported progress with it; zero: never
	resigned map[member.Name]resignation
}

// resignation is when a peer last gave a role back, and of which epoch.
type resignation struct {
	epoch uint64
	at    time.Time
}

const penalty = 30 * time.Second // for which who resigned a role is its last choice

// next is the one assignment to make now.
func (b roleBook) next() (fsm.Assign, bool) {
	counts := map[member.Name]int{}
	for _, t := range b.held {
		counts[member.Name(t.assigned.Holder)]++
	}
	for _, name := range role.All() {
		t := b.held[name]
		t.assigned.Role = name
		if b.works(t) {
			continue
		}
		to := b.choose(t, counts)
		if to == "" || (string(to) == t.assigned.Holder && !b.resignedNow(t)) {
			continue // nobody better
		}
		return fsm.Assign{Role: name, Holder: string(to), Epoch: t.assigned.Epoch}, true
	}
	return b.spread(counts)
}

// works reports whether a role's holder does its work, or may still begin to.
func (b roleBook) works(t tenure) bool {
	holder := member.Name(t.assigned.Holder)
	if holder == "" || !b.present(holder) || b.resignedNow(t) || b.declined(holder, t.assigned.Role) {
		return false
	}
	if b.now.Sub(t.progress) < b.timing.Silence {
		return true
	}
	return t.progress.IsZero() && b.now.Sub(later(t.since, b.begun)) < b.timing.Settle
}

func (b roleBook) resignedNow(t tenure) bool {
	r, ok := t.resigned[member.Name(t.assigned.Holder)]
	return ok && r.epoch == t.assigned.Epoch
}

func (b roleBook) declined(name member.Name, what role.Name) bool {
	return slices.ContainsFunc(b.peers, func(p rolePeer) bool { return p.name == name && slices.Contains(p.declines, what) })
}

// present reports whether a peer is there: not dead, and reporting, or so
// early in the term that it need not have.
func (b roleBook) present(name member.Name) bool {
	i := slices.IndexFunc(b.peers, func(p rolePeer) bool { return p.name == name })
	if i < 0 || b.peers[i].dead {
		return false
	}
	return name == b.leader || b.now.Sub(later(b.peers[i].heard, b.begun)) < b.timing.Silence
}

// choose is the peer to hold a role: one that reports, that does not decline
// it, did not just resign it, does not already fail it, has the fewest roles, and rather not
// the leader.
func (b roleBook) choose(t tenure, counts map[member.Name]int) member.Name {
	var able []rolePeer
	for _, p := range b.peers {
		if !p.dead && !slices.Contains(p.declines, t.assigned.Role) && (p.name == b.leader || b.now.Sub(p.heard) < b.timing.Silence) {
			able = append(able, p)
		}
	}
	if len(able) == 0 {
		return ""
	}
	rank := func(p rolePeer) int {
		r := 0
		if gave, ok := t.resigned[p.name]; ok && b.now.Sub(gave.at) < penalty {
			r += 1000
		}
		if string(p.name) == t.assigned.Holder {
			r += 500
		}
		r += 10 * counts[p.name]
		if p.name == b.leader {
			r++
		}
		return r
	}
	best := slices.MinFunc(able, func(x, y rolePeer) int {
		return cmp.Or(cmp.Compare(rank(x), rank(y)), cmp.Compare(x.name, y.name))
	})
	return best.name
}

// spread moves a role off a peer that holds two or more to one that holds
// none, once both the term and that peer have been quiet for a while.
func (b roleBook) spread(counts map[member.Name]int) (fsm.Assign, bool) {
	if b.now.Sub(b.begun) < b.timing.Settle {
		return fsm.Assign{}, false
	}
	for _, p := range b.peers {
		steady := p.name == b.leader ||
			(!p.reporting.IsZero() && b.now.Sub(p.reporting) >= b.timing.Settle && b.now.Sub(p.heard) < b.timing.Silence)
		if p.dead || counts[p.name] > 0 || !steady {
			continue
		}
		for _, name := range slices.Backward(role.All()) {
			t := b.held[name]
			gave, resigned := t.resigned[p.name]
			if slices.Contains(p.declines, name) {
				continue
			}
			if counts[member.Name(t.assigned.Holder)] >= 2 && (!resigned || b.now.Sub(gave.at) >= penalty) {
				return fsm.Assign{Role: name, Holder: string(p.name), Epoch: t.assigned.Epoch}, true
			}
		}
	}
	return fsm.Assign{}, false
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
