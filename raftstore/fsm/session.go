package fsm

import (
	"maps"
	"slices"
)

// Bounds of the memory for requests already applied. Both are far above what
// peers have under way (a proposer's queue holds 4,096).
const (
	maxSessions = 512
	maxWindow   = 1 << 14
)

// session remembers what of one peer's boot has been applied: everything
// below floor, and done.
type session struct {
	boot, floor uint64
	done        map[uint64]struct{}
	used        uint64 // sessions.clock when last admitted
}

// sessions de-duplicates requests by their ids.
type sessions struct {
	peers map[string]*session
	clock uint64
}

func newSessions() sessions { return sessions{peers: map[string]*session{}} }

// admit reports whether id has not been applied yet, and remembers it. What
// an earlier boot left behind counts as applied: nobody waits for it, and
// what it was is no longer known.
func (s *sessions) admit(id RequestID, floor uint64) bool {
	s.clock++
	p := s.peers[id.Peer]
	switch {
	case p == nil:
		p = &session{boot: id.Boot, done: map[uint64]struct{}{}}
		s.peers[id.Peer] = p
		s.evict()
	case id.Boot < p.boot:
		return false
	case id.Boot > p.boot:
		*p = session{boot: id.Boot, done: map[uint64]struct{}{}}
	}
	p.used = s.clock
	if _, dup := p.done[id.Seq]; dup || id.Seq < p.floor {
		return false
	}
	p.done[id.Seq] = struct{}{}
	p.raise(floor)
	if len(p.done) > maxWindow {
		p.raise(slices.Min(slices.Collect(maps.Keys(p.done))) + 1)
	}
	return true
}

// raise moves the floor up to at least floor, and on over what is done.
func (p *session) raise(floor uint64) {
	if floor > p.floor {
		maps.DeleteFunc(p.done, func(seq uint64, _ struct{}) bool { return seq < floor })
		p.floor = floor
	}
	for {
		if _, ok := p.done[p.floor]; !ok {
			return
		}
		delete(p.done, p.floor)
		p.floor++
	}
}

// evict forgets the peer that has been silent for longest.
func (s *sessions) evict() {
	if len(s.peers) <= maxSessions {
		return
	}
	oldest, least := "", s.clock
	for name, p := range s.peers {
		if p.used < least && p.used > 0 {
			oldest, least = name, p.used
		}
	}
	delete(s.peers, oldest)
}

// clone copies s for a snapshot that is written while the machine goes on.
func (s *sessions) clone() sessions {
	c := sessions{peers: make(map[string]*session, len(s.peers)), clock: s.clock}
	for name, p := range s.peers {
		q := *p
		q.done = maps.Clone(p.done)
		c.peers[name] = &q
	}
	return c
}
