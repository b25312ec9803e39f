// Package member is the vocabulary of membership: who belongs to the mesh and
// who of them lives.
//
// Its invariant: a peer is Dead only after probes confirmed it; gossip alone
// makes it Suspect.
package member

import (
	"net/netip"
	"time"
)

// Name is a peer's name: a DNS label that is also its Node's name.
type Name string

// ServerID identifies one data directory of a peer in raft. It is minted with
// the directory and never reused.
type ServerID string

// State is what the mesh believes of a peer.
type State string

// The states of a peer.
const (
	Alive      State = "Alive"      // answers
	Suspect    State = "Suspect"    // gossip misses it, probes have not confirmed
	Restarting State = "Restarting" // its guard lives, its daemon does not answer
	Dead       State = "Dead"       // confirmed by probes of peer and guard
	Left       State = "Left"       // said goodbye
)

// Peer is one member as this peer sees it now.
type Peer struct {
	Name      Name
	ServerID  ServerID
	Addresses []netip.Addr // at least one; the first is the one peers dial
	Zone      string
	Version   string
	State     State
	Since     time.Time // when State was entered, by this peer's clock
}

// RestartGrace is how long a peer may be Restarting before it counts as not
// ready. It never counts as dead while its guard lives.
const RestartGrace = 30 * time.Second

// Overdue reports whether p has been Restarting for longer than RestartGrace
// at now: from then on it is to be treated as not ready.
func (p Peer) Overdue(now time.Time) bool {
	return p.State == Restarting && !now.Before(p.Since.Add(RestartGrace))
}

// View tells who lives. Implementations are safe for concurrent use.
type View interface {
	// Peers returns all known members sorted by name, the peer itself
	// included; the slice is the caller's.
	Peers() []Peer
	// Changed returns a channel that is closed at the next change after the
	// call, a restart that becomes overdue included; take it before Peers, so
	// that nothing is missed.
	Changed() <-chan struct{}
}
