// Package membertest has the membership that tests of its readers set by hand.
//
// Its invariant: a change closes the channel that Changed returned before it,
// as [member.View] promises.
package membertest

import (
	"cmp"
	"slices"
	"sync"

	"skein.dev/skein/api/member"
)

// View is a [member.View]. Its zero value has no peers.
type View struct {
	mu      sync.Mutex // guards the fields below
	peers   []member.Peer
	changed chan struct{}
}

// New returns a View in which the named peers live.
func New(names ...member.Name) *View {
	v := &View{}
	for _, n := range names {
		v.SetState(n, member.Alive)
	}
	return v
}

// Peers implements [member.View].
func (v *View) Peers() []member.Peer {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.peers)
}

// Changed implements [member.View].
func (v *View) Changed() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.changed == nil {
		v.changed = make(chan struct{})
	}
	return v.changed
}

// Set makes peers the whole membership.
func (v *View) Set(peers ...member.Peer) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.setLocked(peers)
}

// SetState notes the state of one peer, which it adds if it is new.
func (v *View) SetState(n member.Name, s member.State) {
	v.mu.Lock()
	defer v.mu.Unlock()
	peers := slices.DeleteFunc(slices.Clone(v.peers), func(p member.Peer) bool { return p.Name == n })
	v.setLocked(append(peers, member.Peer{Name: n, State: s}))
}

func (v *View) setLocked(peers []member.Peer) {
	v.peers = slices.SortedFunc(slices.Values(peers), func(a, b member.Peer) int { return cmp.Compare(a.Name, b.Name) })
	if v.changed != nil {
		close(v.changed)
		v.changed = nil
	}
}

// State is the state of a peer; of one that is unknown it is empty.
func (v *View) State(n member.Name) member.State {
	for _, p := range v.Peers() {
		if p.Name == n {
			return p.State
		}
	}
	return ""
}
