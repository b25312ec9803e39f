// Package network is the kernel adapter of the pod network: routes between
// the peers' pod ranges, VXLAN where they share no link, masquerading of what
// leaves the cluster, and the addresses a peer answers itself.
//
// Its invariant: it changes only what is its own, told by a route protocol
// number, interface names or nftables tables, and before the peer's replica is
// settled it adds but never deletes.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"skein.dev/skein/api/member"
	"skein.dev/skein/network/ns"
)

// The names and numbers by which the kernel's objects are known as ours.
const (
	// VXLANLink is the interface of the overlay.
	VXLANLink = "skein-vx"
	// LocalLink is the interface that carries Config.Local.
	LocalLink = "skein-dns"
	// RouteProtocol marks the routes to other peers' pod ranges.
	RouteProtocol = 83

	defaultVXLANPort = 8472
	defaultVNI       = 83
	vxlanOverhead    = 50 // outer Ethernet, IPv4, UDP, VXLAN
	debounce         = 50 * time.Millisecond
	retryAfter       = 5 * time.Second
	unsettledPoll    = time.Second
)

// Config says what to connect. Peer and Peers are needed.
type Config struct {
	// Peer is this peer's name in Peers.
	Peer member.Name
	// Peers are all peers with their pod ranges.
	Peers Source
	// ClusterCIDRs are the ranges that peers' ranges are cut from; traffic
	// between them keeps its source address.
	ClusterCIDRs []netip.Prefix
	// Local are addresses this peer answers itself, as the cluster's DNS.
	// They are put on a dummy interface.
	Local []netip.Addr
	// Overlay says when to use VXLAN; default: where peers share no link.
	Overlay Overlay
	// VXLANPort is the UDP port of the overlay (default 8472), VNI its
	// network identifier (default 83).
	VXLANPort, VNI int
	// NetNS is the path of the network namespace to work in; default: the
	// process's own.
	NetNS string
	// Settled as in component.Kit; nil means always.
	Settled func() bool
	// Log may be nil.
	Log *slog.Logger
}

// Network keeps the kernel as the peers want it.
type Network struct {
	cfg Config
	log *slog.Logger
}

// New checks the configuration; it touches nothing.
func New(c Config) (*Network, error) {
	if c.Peer == "" || c.Peers == nil {
		return nil, errors.New("network: Peer and Peers are needed")
	}
	if c.VXLANPort == 0 {
		c.VXLANPort = defaultVXLANPort
	}
	if c.VNI == 0 {
		c.VNI = defaultVNI
	}
	if c.Settled == nil {
		c.Settled = func() bool { return true }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Network{cfg: c, log: c.Log}, nil
}

// Run brings the kernel to what the peers want and keeps it there, until ctx
// ends. It wakes at changes of the peers and of the kernel's links, addresses
// and routes. What fails is tried again; only a kernel that gives no netlink
// at all ends Run with an error.
func (n *Network) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	events, err := n.subscribe(ctx)
	if err != nil {
		cancel()
		return err
	}
	defer events.wait()
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		changed := n.cfg.Peers.Changed()
		again := n.pass(ctx)
		if !timer.Stop() {
			select {
			case <-timer.C:
			default:
			}
		}
		if again > 0 {
			timer.Reset(again)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-timer.C:
		case <-events.wake:
			if !pause(ctx, debounce) {
				return nil
			}
			events.drain()
		}
	}
}

// pass reconciles once and returns when to do so again without an event; 0
// means never.
func (n *Network) pass(ctx context.Context) time.Duration {
	settled := n.cfg.Settled()
	if err := n.Reconcile(ctx); err != nil {
		if ctx.Err() == nil {
			n.log.WarnContext(ctx, "pod network is not as it should be", "err", err, "retryAfter", retryAfter)
		}
		return retryAfter
	}
	if !settled {
		return unsettledPoll
	}
	return 0
}

// Reconcile brings the kernel to what the peers want, once. Run does it by
// itself; it is safe to call beside it.
func (n *Network) Reconcile(ctx context.Context) error {
	k, err := openKernel(n.cfg)
	if err != nil {
		return err
	}
	defer k.close()
	links, err := k.links()
	if err != nil {
		return err
	}
	p := makePlan(n.cfg.Peer, n.cfg.Peers.Peers(), links, n.cfg.Overlay, n.cfg.ClusterCIDRs)
	// A list of peers without ourselves has not arrived yet.
	settled := n.cfg.Settled() && len(p.own.PodCIDRs) > 0
	errs := []error{
		k.forwarding(p),
		k.local(n.cfg.Local, settled),
		k.masquerade(p.local, settled),
	}
	index, err := k.overlay(p, underlayMTU(links, p.own), settled)
	errs = append(errs, err)
	if err == nil {
		errs = append(errs, k.routes(p, index, settled))
	}
	n.log.DebugContext(ctx, "pod network reconciled", "routes", len(p.routes), "tunnels", len(p.tunnels), "settled", settled)
	return errors.Join(errs...)
}

// MTU is what pods' interfaces should have: that of the interface with the
// peer's address, less the overlay's overhead where it may be used. Every
// pod gets the smaller one, because a peer behind the overlay may join later.
func (n *Network) MTU() (int, error) {
	k, err := openKernel(n.cfg)
	if err != nil {
		return 0, err
	}
	defer k.close()
	links, err := k.links()
	if err != nil {
		return 0, err
	}
	var own Peer
	for _, p := range n.cfg.Peers.Peers() {
		if p.Name == n.cfg.Peer {
			own = p
		}
	}
	mtu := underlayMTU(links, own)
	if n.cfg.Overlay == OverlayNever {
		return mtu, nil
	}
	return mtu - vxlanOverhead, nil
}

func underlayMTU(links []link, own Peer) int {
	for _, a := range own.Addresses {
		for _, l := range links {
			if slices.ContainsFunc(l.prefixes, func(p netip.Prefix) bool { return p.Addr() == a }) {
				return l.mtu
			}
		}
	}
	return 1500
}

// Clean removes everything that is ours from the kernel, pods' links
// included.
func (n *Network) Clean(context.Context) error {
	k, err := openKernel(n.cfg)
	if err != nil {
		return err
	}
	defer k.close()
	return errors.Join(
		k.dropRoutes(),
		k.dropLinks(),
		k.dropMasquerade(),
	)
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// setSysctl writes a kernel parameter of the namespace, if it differs.
func setSysctl(netns, name, value string) error {
	err := ns.Do(netns, func() error { return writeSysctl(name, value) })
	if err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}
