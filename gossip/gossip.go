// Package gossip is a peer's knowledge of the others: hashicorp/memberlist on
// the mesh's one port spreads who is there and suspects who is not, direct
// probes of daemon and guard decide, and package view holds the rules.
//
// Its invariant: what memberlist claims is never shown as it is; a peer is
// Dead in this view only after probes of this very peer have found neither
// daemon nor guard.
package gossip

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"skein.dev/skein/api/member"
	"skein.dev/skein/gossip/view"
)

// Member describes a peer.
type Member = view.Member

// Dialer makes the streams of gossip: links of protocol skein-gossip/1.
type Dialer interface {
	// Dial connects to the peer at addr before ctx ends.
	Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
}

// Prober asks a peer directly. Both methods block until an answer or ctx
// ends, and are called concurrently.
type Prober interface {
	// ProbeDaemon returns nil if the daemon of m answers on a peer link and
	// proves to be m.ServerID.
	ProbeDaemon(ctx context.Context, m Member) error
	// ProbeGuard returns nil if the guard on m's machine answers.
	ProbeGuard(ctx context.Context, m Member) error
}

// Config is what a Pool needs; all fields without "may be" are required.
type Config struct {
	// Self is this peer. Its first address and port are what others dial.
	// Boot may be empty: then New makes one.
	Self Member
	// Keys are AES-256 keys: the first encrypts, all decrypt.
	Keys [][]byte
	// Mesh is the cluster's id and incarnation; packets of others are dropped.
	Mesh string
	// Packets is the UDP side of the port. Run closes it.
	Packets net.PacketConn
	// Streams yields the incoming gossip links. Run closes it.
	Streams net.Listener
	Dialer  Dialer
	Prober  Prober
	// Records may be the peers known at start; see SetRecords.
	Records []Member
	// ProbeTimeout bounds one direct probe; 0 means 700 ms.
	ProbeTimeout time.Duration
	// Timing may be the zero value.
	Timing view.Timing
	// Log may be nil.
	Log *slog.Logger
}

// Pool is the running knowledge. It implements member.View.
type Pool struct {
	cfg  Config
	ring *memberlist.Keyring
	wake chan struct{} // an event is waiting

	mu      sync.Mutex             // guards the fields below
	machine *view.Machine          // stepped by Run alone
	inbox   []view.Event           // events not stepped yet
	peers   []member.Peer          // the machine's peers, replaced as a whole
	near    []Member               // those of them that a notice may reach, likewise
	changed chan struct{}          // closed at the next change
	list    *memberlist.Memberlist // nil while Run does not run
}

var _ member.View = (*Pool)(nil)

// New checks cfg; nothing is sent before Run.
func New(cfg Config) (*Pool, error) {
	switch {
	case cfg.Self.Name == "" || cfg.Self.ServerID == "":
		return nil, errors.New("gossip: own name or server id is missing")
	case len(cfg.Self.Addresses) == 0 || cfg.Self.Port == 0:
		return nil, errors.New("gossip: own address or port is missing")
	case len(cfg.Keys) == 0:
		return nil, errors.New("gossip: key is missing")
	case cfg.Packets == nil || cfg.Streams == nil || cfg.Dialer == nil || cfg.Prober == nil:
		return nil, errors.New("gossip: packets, streams, dialer or prober is missing")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.ProbeTimeout == 0 {
		cfg.ProbeTimeout = 700 * time.Millisecond
	}
	if cfg.Self.Boot == "" {
		b := make([]byte, 8)
		_, _ = rand.Read(b) // never fails
		cfg.Self.Boot = hex.EncodeToString(b)
	}
	if _, err := encodeMeta(cfg.Self); err != nil {
		return nil, err
	}
	ring, err := memberlist.NewKeyring(cfg.Keys, cfg.Keys[0])
	if err != nil {
		return nil, fmt.Errorf("gossip: make keyring: %w", err)
	}
	p := &Pool{
		cfg: cfg, ring: ring, wake: make(chan struct{}, 1), changed: make(chan struct{}),
		machine: view.New(cfg.Self, cfg.Timing, time.Now()),
	}
	p.peers = p.machine.Peers()
	if len(cfg.Records) > 0 {
		p.SetRecords(cfg.Records)
	}
	return p, nil
}

// Peers implements member.View.
func (p *Pool) Peers() []member.Peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.peers)
}

// Changed implements member.View.
func (p *Pool) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// SetRecords tells the pool which peers are on record (the Peer objects), this
// one included or not. Those it does not see it probes, and joins when they
// answer: so a healed partition and a mesh that was off find together again.
func (p *Pool) SetRecords(members []Member) {
	p.post(view.Recorded{Members: slices.Clone(members)})
}

// Doubt makes the pool probe a peer now, because the caller has reason to
// believe it gone.
func (p *Pool) Doubt(name member.Name) { p.post(view.Doubted{Name: name}) }

// SetKeys replaces the keys: the first encrypts, all decrypt.
func (p *Pool) SetKeys(keys [][]byte) error {
	if len(keys) == 0 {
		return errors.New("set gossip keys: none given")
	}
	for _, k := range keys {
		if err := p.ring.AddKey(k); err != nil {
			return fmt.Errorf("set gossip keys: %w", err)
		}
	}
	if err := p.ring.UseKey(keys[0]); err != nil {
		return fmt.Errorf("set gossip keys: %w", err)
	}
	for _, old := range slices.Clone(p.ring.GetKeys()) {
		if slices.ContainsFunc(keys, func(k []byte) bool { return slices.Equal(k, old) }) {
			continue
		}
		if err := p.ring.RemoveKey(old); err != nil {
			return fmt.Errorf("set gossip keys: %w", err)
		}
	}
	return nil
}

// post queues an event; it never blocks, because memberlist calls it with its
// locks held.
func (p *Pool) post(ev view.Event) {
	p.mu.Lock()
	p.inbox = append(p.inbox, ev)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}
