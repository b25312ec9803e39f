package raftstore

import (
	"cmp"
	"slices"

	"github.com/hashicorp/raft"

	"skein.dev/skein/api/member"
)

// verb is one kind of change to the raft configuration.
type verb string

const (
	addNonvoter verb = "add as non-voter"
	readdress   verb = "note new address"
	promote     verb = "promote to voter"
	demote      verb = "demote to non-voter"
	remove      verb = "remove"
	transfer    verb = "transfer leadership"
)

// change is one step of the configuration; the zero value is none.
type change struct {
	verb verb
	id   member.ServerID
}

// electorate is what the choice of voters depends on.
type electorate struct {
	members []Member
	servers []raft.Server
	leader  member.ServerID
	// caughtUp are the peers whose log is about as long as the leader's.
	caughtUp map[member.ServerID]bool
	// most is the most voters wanted.
	most int
}

func (e electorate) member(id member.ServerID) (Member, bool) {
	i := slices.IndexFunc(e.members, func(m Member) bool { return m.ServerID == id })
	if i < 0 {
		return Member{}, false
	}
	return e.members[i], true
}

func (e electorate) server(id member.ServerID) (raft.Server, bool) {
	i := slices.IndexFunc(e.servers, func(s raft.Server) bool { return s.ID == raft.ServerID(id) })
	if i < 0 {
		return raft.Server{}, false
	}
	return e.servers[i], true
}

// live: it is known, not confirmed dead, and does not leave.
func (e electorate) live(id member.ServerID) bool {
	m, ok := e.member(id)
	return ok && !m.Dead && !m.Leaving
}

func (e electorate) leaving(id member.ServerID) bool {
	m, _ := e.member(id)
	return m.Leaving
}

func (e electorate) voters() []member.ServerID {
	var out []member.ServerID
	for _, s := range e.servers {
		if s.Suffrage == raft.Voter {
			out = append(out, member.ServerID(s.ID))
		}
	}
	return out
}

// next is the one change that brings the configuration nearer to what is
// wanted, or none. It never proposes a configuration of which a majority is
// not alive: such a change could not be committed nor undone.
func (e electorate) next() change {
	if c := e.admit(); c != (change{}) {
		return c
	}
	wanted := e.wanted()
	voters := e.voters()
	if e.leaving(e.leader) {
		if to := e.heir(voters); to != "" {
			return change{transfer, to}
		}
	}
	for _, id := range wanted {
		if !slices.Contains(voters, id) && e.majority(append(slices.Clone(voters), id)) {
			return change{promote, id}
		}
	}
	for _, s := range e.servers {
		id := member.ServerID(s.ID)
		if id != e.leader && e.leaving(id) && e.majority(without(voters, id)) {
			return change{remove, id}
		}
	}
	for _, id := range slices.Backward(e.ranked(voters)) { // the least worth keeping first
		if id != e.leader && !slices.Contains(wanted, id) && e.majority(without(voters, id)) {
			return change{demote, id}
		}
	}
	return change{}
}

// admit brings new peers in, and new addresses.
func (e electorate) admit() change {
	for _, m := range e.members {
		s, in := e.server(m.ServerID)
		if !in && e.live(m.ServerID) && m.Address != "" {
			return change{addNonvoter, m.ServerID}
		}
		if in && e.live(m.ServerID) && m.Address != "" && s.Address != raftAddress(m.ServerID, m.Address) {
			return change{readdress, m.ServerID}
		}
	}
	return change{}
}

// heir is to whom a leaving leader hands over.
func (e electorate) heir(voters []member.ServerID) member.ServerID {
	for _, id := range voters {
		if id != e.leader && e.live(id) && e.caughtUp[id] {
			return id
		}
	}
	return ""
}

// wanted is the set of voters aimed at: 1, 3 or 5, an odd number even while
// peers come. Voters stay while they live; then peers that caught up, of
// zones that have no voter first; a dead voter keeps its place only while
// nobody can take it.
func (e electorate) wanted() []member.ServerID {
	stay := 0
	for _, s := range e.servers {
		if !e.leaving(member.ServerID(s.ID)) {
			stay++
		}
	}
	aim := max(1, min(e.most, (stay-1)/2*2+1))
	var chosen, dead []member.ServerID
	for _, id := range e.ranked(e.voters()) {
		switch m, _ := e.member(id); {
		case m.Leaving:
		case m.Dead:
			dead = append(dead, id)
		default: // also one of whom we have been told nothing
			chosen = append(chosen, id)
		}
	}
	chosen = chosen[:min(aim, len(chosen))]
	kept := len(chosen)
	for len(chosen) < aim {
		id := e.candidate(chosen)
		if id == "" {
			break
		}
		chosen = append(chosen, id)
	}
	for len(chosen) < aim && len(dead) > 0 {
		chosen, dead = append(chosen, dead[0]), dead[1:]
	}
	if len(chosen)%2 == 0 && len(chosen) > max(kept, 1) {
		chosen = chosen[:len(chosen)-1] // two voters are worse than one, four than three
	}
	return chosen
}

// candidate is the best peer to become a voter beside chosen.
func (e electorate) candidate(chosen []member.ServerID) member.ServerID {
	zones := map[string]bool{}
	for _, id := range chosen {
		m, _ := e.member(id)
		zones[m.Zone] = true
	}
	best, bestNew := member.ServerID(""), false
	for _, s := range e.servers {
		id := member.ServerID(s.ID)
		if s.Suffrage == raft.Voter || !e.live(id) || !e.caughtUp[id] || slices.Contains(chosen, id) {
			continue
		}
		m, _ := e.member(id)
		if fresh := !zones[m.Zone]; best == "" || (fresh && !bestNew) {
			best, bestNew = id, fresh
		}
	}
	return best
}

// ranked orders voters by how much they are worth keeping: the leader, the
// living, those alone in their zone, and the configuration's order.
func (e electorate) ranked(voters []member.ServerID) []member.ServerID {
	zones := map[string]int{}
	for _, id := range voters {
		m, _ := e.member(id)
		zones[m.Zone]++
	}
	worth := func(id member.ServerID) int {
		m, _ := e.member(id)
		switch {
		case id == e.leader && !m.Leaving:
			return 0
		case !e.live(id):
			return 3
		case zones[m.Zone] > 1:
			return 2
		}
		return 1
	}
	out := slices.Clone(voters)
	slices.SortStableFunc(out, func(a, b member.ServerID) int { return cmp.Compare(worth(a), worth(b)) })
	return out
}

// majority reports whether more than half of voters answer. One that leaves
// still does, until it is removed.
func (e electorate) majority(voters []member.ServerID) bool {
	up := 0
	for _, id := range voters {
		if m, ok := e.member(id); ok && !m.Dead {
			up++
		}
	}
	return up > len(voters)/2
}

func without(ids []member.ServerID, id member.ServerID) []member.ServerID {
	return slices.DeleteFunc(slices.Clone(ids), func(one member.ServerID) bool { return one == id })
}
