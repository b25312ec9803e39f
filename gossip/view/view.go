// Package view decides what a peer believes of the others: it merges what
// gossip claims, what peers announce of themselves, what direct probes found
// and who is on record.
//
// Its invariant: a peer becomes Dead only when gossip has lost it and several
// probes in a row reached neither its daemon nor its guard; and what is
// decided depends on nothing but the events and times given to Step.
package view

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"skein.dev/skein/api/member"
)

// Member is what is known of a peer apart from its health.
type Member struct {
	Name      member.Name
	ServerID  member.ServerID
	Addresses []netip.Addr // the first is the one that is probed
	Port      uint16       // the one port
	Zone      string
	Version   string
	// Boot differs between two starts of a peer's daemon.
	Boot string
}

// Event is something that happened.
type Event interface{ isEvent() }

// The events.
type (
	// Joined says that gossip holds the member for alive, newly or with changed data.
	Joined struct{ Member Member }
	// Lost says that gossip has given the member up.
	Lost struct{ Name member.Name }
	// Announced is what a peer's daemon said of itself before it stopped.
	Announced struct {
		Name member.Name
		Boot string
		What Announcement
	}
	// Probed is the outcome of a Plan's probe.
	Probed struct {
		Name   member.Name
		Round  uint64 // of the Probe that this answers
		Daemon bool   // the daemon answered on a peer link, as the wanted server id
		Guard  bool   // the machine's guard answered
	}
	// Doubted says that somebody has reason to believe the peer gone, such as a broken raft link.
	Doubted struct{ Name member.Name }
	// Recorded is the whole list of peers on record.
	Recorded struct{ Members []Member }
	// Ticked says that the time of Next has come.
	Ticked struct{}
)

func (Joined) isEvent()    {}
func (Lost) isEvent()      {}
func (Announced) isEvent() {}
func (Probed) isEvent()    {}
func (Doubted) isEvent()   {}
func (Recorded) isEvent()  {}
func (Ticked) isEvent()    {}

// Announcement is what a daemon says before it stops on purpose.
type Announcement string

// The announcements.
const (
	Leaving    Announcement = "leaving"
	Restarting Announcement = "restarting"
)

// Plan is what the shell has to do after a step.
type Plan struct {
	// Changed says that Peers differs from before.
	Changed bool
	// Probe are those to probe now, daemon and guard; each is answered by one Probed.
	Probe []Probe
	// Rejoin are those that answer although gossip has lost them.
	Rejoin []Member
}

// Probe asks for one probe. Its round tells its answer from that of an earlier
// one that is still under way.
type Probe struct {
	Member
	Round uint64
}

// Timing are the machine's times; zero means the default in brackets.
type Timing struct {
	// Confirmations is how many failed probes in a row make a lost peer dead [2].
	Confirmations int
	// Retry is the wait between probes of a suspect [300 ms].
	Retry time.Duration
	// Recheck is the wait between probes of a restarting peer, and the first
	// of a dead one [1 s]; a dead peer's waits double up to MaxRecheck [5 s].
	Recheck, MaxRecheck time.Duration
	// Forget is how long a peer that left and is on no record stays in sight [1 min].
	Forget time.Duration
}

// Machine is the belief of one peer. It is not safe for concurrent use.
type Machine struct {
	self    member.Name
	timing  Timing
	entries map[member.Name]*entry
	rounds  uint64 // probes asked for so far
}

// entry is one peer in sight.
type entry struct {
	Member
	state    member.State
	since    time.Time
	gossip   bool         // gossip holds it for alive
	recorded bool         // it is on record
	goodbye  string       // the boot that announced that it stops
	said     Announcement // what it announced
	failed   int          // probes in a row that reached nobody
	rechecks uint         // probes since it is dead
	probing  uint64       // the round under way; 0: none
	next     time.Time    // of the next probe; zero: none
	overdue  bool         // its restart has been reported as overdue
}

// New returns a machine that knows only self.
func New(self Member, t Timing, now time.Time) *Machine {
	if t.Confirmations == 0 {
		t.Confirmations = 2
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&t.Retry, 300*time.Millisecond)
	def(&t.Recheck, time.Second)
	def(&t.MaxRecheck, 5*time.Second)
	def(&t.Forget, time.Minute)
	m := &Machine{self: self.Name, timing: t, entries: make(map[member.Name]*entry)}
	m.entries[self.Name] = &entry{Member: self, state: member.Alive, since: now, gossip: true}
	return m
}

// Peers returns all peers in sight, sorted by name.
func (m *Machine) Peers() []member.Peer {
	var out []member.Peer
	for _, name := range m.names() {
		e := m.entries[name]
		out = append(out, member.Peer{
			Name: e.Name, ServerID: e.ServerID, Addresses: slices.Clone(e.Addresses),
			Zone: e.Zone, Version: e.Version, State: e.state, Since: e.since,
		})
	}
	return out
}

// Reachable returns the other peers that are not known to be gone, sorted by
// name.
func (m *Machine) Reachable() []Member {
	var out []Member
	for _, name := range m.names() {
		e := m.entries[name]
		if name != m.self && (e.state == member.Alive || e.state == member.Suspect) && len(e.Addresses) > 0 {
			out = append(out, e.Member)
		}
	}
	return out
}

// Next is when Step wants a Ticked; zero: not before another event.
func (m *Machine) Next() time.Time {
	var next time.Time
	earliest := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, e := range m.entries {
		if e.probing == 0 {
			earliest(e.next)
		}
		if e.state == member.Restarting && !e.overdue {
			earliest(e.since.Add(member.RestartGrace))
		}
		if e.state == member.Left && !e.recorded {
			earliest(e.since.Add(m.timing.Forget))
		}
	}
	return next
}

func (m *Machine) names() []member.Name { return slices.Sorted(maps.Keys(m.entries)) }
