package view

import (
	"slices"
	"time"

	"skein.dev/skein/api/member"
)

// Step takes one event at the time now, which must not run backwards.
func (m *Machine) Step(ev Event, now time.Time) Plan {
	var p Plan
	switch ev := ev.(type) {
	case Joined:
		m.joined(ev.Member, now, &p)
	case Lost:
		m.lost(ev.Name, now, &p)
	case Announced:
		m.announced(ev, now, &p)
	case Probed:
		m.probed(ev, now, &p)
	case Doubted:
		if e := m.other(ev.Name); e != nil && e.state == member.Alive {
			e.next = now
		}
	case Recorded:
		m.recorded(ev.Members, now, &p)
	case Ticked:
	}
	m.due(now, &p)
	return p
}

func (m *Machine) joined(mem Member, now time.Time, p *Plan) {
	if mem.Name == m.self {
		return
	}
	e := m.entries[mem.Name]
	if e == nil {
		e = &entry{Member: mem, since: now}
		m.entries[mem.Name] = e
		p.Changed = true
	}
	if e.goodbye != "" && e.goodbye == mem.Boot {
		// Gossip repeats a daemon that has said it stops, or has been overtaken by what it said.
		if e.Boot != mem.Boot {
			e.Member = mem
			m.goodbye(e, now, p)
		}
		return
	}
	if !same(e.Member, mem) {
		e.Member = mem
		p.Changed = true
	}
	e.gossip, e.goodbye = true, ""
	m.enter(e, member.Alive, now, p)
}

func (m *Machine) lost(name member.Name, now time.Time, p *Plan) {
	e := m.other(name)
	if e == nil {
		return
	}
	e.gossip = false
	if e.state == member.Alive {
		m.enter(e, member.Suspect, now, p)
	}
}

func (m *Machine) announced(a Announced, now time.Time, p *Plan) {
	e := m.other(a.Name)
	if e == nil {
		return
	}
	e.goodbye, e.said = a.Boot, a.What
	if e.Boot == "" || a.Boot == e.Boot { // else it is of an earlier start, or of one that gossip has not told of yet
		m.goodbye(e, now, p)
	}
}

// goodbye does as the peer has announced.
func (m *Machine) goodbye(e *entry, now time.Time, p *Plan) {
	p.Changed = true
	if e.said == Leaving {
		e.gossip = false
		m.enter(e, member.Left, now, p)
		return
	}
	m.enter(e, member.Restarting, now, p)
}

func (m *Machine) probed(r Probed, now time.Time, p *Plan) {
	e := m.other(r.Name)
	if e == nil || e.probing == 0 || e.probing != r.Round {
		return
	}
	e.probing = 0
	switch {
	case e.state == member.Left:
	case r.Daemon:
		e.failed = 0
		m.enter(e, member.Alive, now, p)
		if !e.gossip {
			p.Rejoin = append(p.Rejoin, e.Member)
		}
	case r.Guard && e.gossip && e.state != member.Restarting:
		// Gossip still hears the daemon: it is slow rather than gone.
		e.failed = 0
		m.enter(e, member.Suspect, now, p)
	case r.Guard:
		e.failed = 0
		m.enter(e, member.Restarting, now, p)
	default:
		e.failed++
		m.unreachable(e, now, p)
	}
	m.schedule(e, now)
}

// unreachable decides about a peer whose machine did not answer a probe.
func (m *Machine) unreachable(e *entry, now time.Time, p *Plan) {
	switch {
	case e.state == member.Dead:
		e.rechecks++
	case e.failed >= m.timing.Confirmations && (!e.gossip || e.goodbye != ""):
		m.enter(e, member.Dead, now, p)
	default:
		m.enter(e, member.Suspect, now, p)
	}
}

func (m *Machine) recorded(members []Member, now time.Time, p *Plan) {
	onRecord := make(map[member.Name]bool)
	for _, mem := range members {
		onRecord[mem.Name] = true
		if mem.Name == m.self {
			continue
		}
		e := m.entries[mem.Name]
		switch {
		case e == nil:
			e = &entry{Member: mem}
			m.entries[mem.Name] = e
			m.enter(e, member.Suspect, now, p)
		case e.ServerID != mem.ServerID && !e.gossip:
			// The name belongs to a new data directory: nothing known of the old one counts.
			e = &entry{Member: mem}
			m.entries[mem.Name] = e
			m.enter(e, member.Suspect, now, p)
		case !e.gossip && !slices.Equal(e.Addresses, mem.Addresses):
			e.Addresses, e.Port = mem.Addresses, mem.Port
			p.Changed = true
		}
		e.recorded = true
	}
	for _, name := range m.names() {
		e := m.entries[name]
		if name == m.self || onRecord[name] {
			continue
		}
		e.recorded = false
		if !e.gossip && e.state != member.Left && e.state != member.Alive {
			delete(m.entries, name)
			p.Changed = true
		}
	}
}

// due collects what the time now brings.
func (m *Machine) due(now time.Time, p *Plan) {
	for _, name := range m.names() {
		e := m.entries[name]
		if e.state == member.Restarting && !e.overdue && !now.Before(e.since.Add(member.RestartGrace)) {
			e.overdue = true
			p.Changed = true
		}
		if e.state == member.Left && !e.recorded && !now.Before(e.since.Add(m.timing.Forget)) {
			delete(m.entries, name)
			p.Changed = true
			continue
		}
		if e.probing == 0 && !e.next.IsZero() && !now.Before(e.next) {
			m.rounds++
			e.probing, e.next = m.rounds, time.Time{}
			p.Probe = append(p.Probe, Probe{Member: e.Member, Round: m.rounds})
		}
	}
}

// enter moves e to state s and arranges its first probe there.
func (m *Machine) enter(e *entry, s member.State, now time.Time, p *Plan) {
	if e.state == s {
		m.schedule(e, now)
		return
	}
	e.state, e.since, e.overdue = s, now, false
	p.Changed = true
	switch s {
	case member.Suspect:
		e.next = now
		if e.probing != 0 {
			e.next = time.Time{}
		}
		return
	case member.Alive:
		e.failed = 0
	case member.Dead:
		e.rechecks = 0
	case member.Restarting, member.Left:
	}
	m.schedule(e, now)
}

// schedule sets the next probe of e by its state.
func (m *Machine) schedule(e *entry, now time.Time) {
	if e.probing != 0 {
		return // its outcome schedules
	}
	var wait time.Duration
	switch e.state {
	case member.Suspect:
		wait = m.timing.Retry
	case member.Restarting:
		wait = m.timing.Recheck
	case member.Dead:
		wait = min(m.timing.Recheck<<min(e.rechecks, 10), m.timing.MaxRecheck)
	case member.Alive:
		if !e.gossip {
			wait = m.timing.Recheck // until gossip has it again
		}
	case member.Left:
	}
	e.next = time.Time{}
	if wait > 0 {
		e.next = now.Add(wait)
	}
}

// other returns the entry of a peer that is not this one.
func (m *Machine) other(name member.Name) *entry {
	if name == m.self {
		return nil
	}
	return m.entries[name]
}

func same(a, b Member) bool {
	return a.Name == b.Name && a.ServerID == b.ServerID && a.Port == b.Port && a.Zone == b.Zone &&
		a.Version == b.Version && a.Boot == b.Boot && slices.Equal(a.Addresses, b.Addresses)
}
