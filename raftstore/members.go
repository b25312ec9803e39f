package raftstore

import (
	"maps"
	"slices"
	"sync"

	"github.com/hashicorp/raft"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/role"
)

// Member is a full peer as the daemon knows it from its Peer record and from
// gossip.
type Member struct {
	ServerID member.ServerID
	Name     member.Name
	Address  string // where to dial its raft and link ports
	Zone     string
	// Dead says that probes confirmed it; a suspicion is not enough.
	Dead bool
	// Leaving asks that the peer be removed: it says goodbye, or an operator
	// gave it up. It is the only way out of the raft configuration; a member
	// that is merely missing from the list is left alone.
	Leaving bool
	// Declines are the roles that the peer never holds.
	Declines []role.Name
}

func (m Member) equal(o Member) bool {
	same := slices.Equal(m.Declines, o.Declines)
	return same && m.ServerID == o.ServerID && m.Name == o.Name && m.Address == o.Address && m.Zone == o.Zone &&
		m.Dead == o.Dead && m.Leaving == o.Leaving
}

// members is who belongs to the store, as the daemon and raft tell it.
type members struct {
	self Member

	mu      sync.Mutex // guards the fields below
	told    map[member.ServerID]Member
	raft    *raft.Raft // nil until it runs
	changed chan struct{}
}

func newMembers(self Member) *members {
	return &members{self: self, told: map[member.ServerID]Member{}, changed: make(chan struct{})}
}

// SetMembers replaces what the store knows of the full peers; it must be told
// all of them, and again with each change.
func (s *Store) SetMembers(all []Member) {
	m := s.members
	m.mu.Lock()
	defer m.mu.Unlock()
	next := make(map[member.ServerID]Member, len(all))
	for _, one := range all {
		next[one.ServerID] = one
	}
	if maps.EqualFunc(next, m.told, Member.equal) {
		return
	}
	m.told = next
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *members) start(r *raft.Raft) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.raft = r
}

// change returns a channel that is closed at the next SetMembers.
func (m *members) change() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// all returns the members sorted by id, this peer among them.
func (m *members) all() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := slices.Collect(maps.Values(m.told))
	if _, ok := m.told[m.self.ServerID]; !ok {
		out = append(out, m.self)
	}
	slices.SortFunc(out, func(a, b Member) int { return compareIDs(a.ServerID, b.ServerID) })
	return out
}

func compareIDs(a, b member.ServerID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// servers is raft's present configuration.
func (m *members) servers() []raft.Server {
	m.mu.Lock()
	r := m.raft
	m.mu.Unlock()
	if r == nil {
		return nil
	}
	f := r.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	return f.Configuration().Servers
}

// allowed reports whether a peer may speak to us: it is a member that is not
// leaving, or in the raft configuration. Who is neither is a stranger, or was
// admitted after the end of this replica's log: a joiner has read of nobody
// yet, one that was cut off may have missed everybody. While a leader is heard,
// the log is current and only that leader may be unknown to it; while none is,
// all are heard whom the connection has authenticated (raft does not ask for
// more: Ongaro's thesis, 4.1), for one of them may be the only way to the rest
// of the log.
func (m *members) allowed(id member.ServerID) bool {
	m.mu.Lock()
	one, told := m.told[id]
	r := m.raft
	m.mu.Unlock()
	if told && !one.Leaving {
		return true
	}
	if slices.ContainsFunc(m.servers(), func(s raft.Server) bool { return s.ID == raft.ServerID(id) }) {
		return true
	}
	if told {
		return false
	}
	if r == nil {
		return true
	}
	_, leader := r.LeaderWithID()
	return leader == "" || leader == raft.ServerID(id)
}

// address is where to dial a peer: as the daemon says, else as raft recorded.
func (m *members) address(id member.ServerID) (string, bool) {
	m.mu.Lock()
	one, ok := m.told[id]
	m.mu.Unlock()
	if ok && one.Address != "" {
		return one.Address, true
	}
	for _, s := range m.servers() {
		if s.ID == raft.ServerID(id) {
			_, addr, ok := splitAddress(s.Address)
			return addr, ok
		}
	}
	return "", false
}

// ServerAddr implements [raft.ServerAddressProvider].
func (m *members) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	addr, ok := m.address(member.ServerID(id))
	if !ok {
		return "", errUnreachable
	}
	return raftAddress(member.ServerID(id), addr), nil
}

// voters are the ids that count for a majority.
func (m *members) voters() []member.ServerID {
	var out []member.ServerID
	for _, s := range m.servers() {
		if s.Suffrage == raft.Voter {
			out = append(out, member.ServerID(s.ID))
		}
	}
	return out
}

// name is the peer's name of a server id.
func (m *members) name(id member.ServerID) (member.Name, bool) {
	for _, one := range m.all() {
		if one.ServerID == id {
			return one.Name, true
		}
	}
	return "", false
}
