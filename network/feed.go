package network

import (
	"net/netip"
	"slices"
	"sync"

	"skein.dev/skein/api/member"
)

// Peer is what the pod network must know of one peer.
type Peer struct {
	Name member.Name
	// Addresses are the machine's, the preferred one first.
	Addresses []netip.Addr
	// PodCIDRs are the ranges the peer gives its pods addresses from.
	PodCIDRs []netip.Prefix
}

// Source tells which peers there are, the peer itself included. Both methods
// are safe for concurrent use and do not block.
type Source interface {
	// Peers returns all peers; the slice is read-only.
	Peers() []Peer
	// Changed returns a channel that is closed at the next change after the
	// call; take it before Peers, so that nothing is missed.
	Changed() <-chan struct{}
}

// Feed is a Source that is told its peers. Its zero value is empty and ready.
type Feed struct {
	mu      sync.Mutex // guards the fields below
	peers   []Peer
	changed chan struct{}
}

// Set replaces the peers. Feed keeps the slices: the caller no longer writes
// to them. Setting the same peers again wakes nobody.
func (f *Feed) Set(peers []Peer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.EqualFunc(f.peers, peers, equalPeers) {
		return
	}
	f.peers = peers
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

func equalPeers(a, b Peer) bool {
	return a.Name == b.Name && slices.Equal(a.Addresses, b.Addresses) && slices.Equal(a.PodCIDRs, b.PodCIDRs)
}

// Peers implements [Source].
func (f *Feed) Peers() []Peer {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.peers
}

// Changed implements [Source].
func (f *Feed) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.changed
}
