package network_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"skein.dev/skein/api/member"
	"skein.dev/skein/network"
	"skein.dev/skein/network/ns"
	"skein.dev/skein/network/nstest"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// peer is a machine on a fabric with one pod.
type peer struct {
	*nstest.NS
	network.Peer
	pod *nstest.NS
	net *network.Network
}

// newPeer makes the machine i with a pod, connected the way the CNI program
// does it, which package cni tests by itself.
func newPeer(t *testing.T, i int) *peer {
	t.Helper()
	p := &peer{NS: nstest.New(t), pod: nstest.New(t), Peer: network.Peer{
		Name:     member.Name(fmt.Sprintf("p%d", i)),
		PodCIDRs: []netip.Prefix{prefix(fmt.Sprintf("10.244.%d.0/24", i))},
	}}
	p.Join(t, "skp0", "", p.pod, "eth0", p.podAddr()+"/32")
	var mac net.HardwareAddr
	p.Do(t, func() error {
		l, err := netlink.LinkByName("skp0")
		if err != nil {
			return err
		}
		mac = l.Attrs().HardwareAddr
		_, dst, err := net.ParseCIDR(p.podAddr() + "/32")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK})
	})
	p.pod.Do(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		gw := net.IPv4(169, 254, 1, 1)
		n := &netlink.Neigh{LinkIndex: l.Attrs().Index, IP: gw, HardwareAddr: mac, State: netlink.NUD_PERMANENT}
		if err := netlink.NeighSet(n); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: gw, Flags: int(netlink.FLAG_ONLINK)})
	})
	return p
}

func (p *peer) podAddr() string { return strings.Replace(p.PodCIDRs[0].String(), "0/24", "5", 1) }

// onLink puts the machine on a fabric bridge with the address.
func (p *peer) onLink(t *testing.T, fabric *nstest.NS, bridge, ip string) {
	t.Helper()
	port := "to-" + string(p.Name)
	p.Join(t, "eth0", ip, fabric, port, "")
	fabric.Do(t, func() error {
		l, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		br, err := netlink.LinkByName(bridge)
		if err != nil {
			return err
		}
		return netlink.LinkSetMaster(l, br)
	})
	p.Addresses = []netip.Addr{prefix(ip).Addr()}
}

func bridge(t *testing.T, fabric *nstest.NS, name, ip string) {
	t.Helper()
	fabric.Do(t, func() error {
		return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}})
	})
	fabric.Address(t, name, ip)
}

func (p *peer) start(t *testing.T, c network.Config) {
	t.Helper()
	c.Peer, c.NetNS = p.Name, p.Path
	n, err := network.New(c)
	if err != nil {
		t.Fatal(err)
	}
	p.net = n
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run of %s: %v", p.Name, err)
		}
	})
}

// ask connects to a server in another namespace and returns the address the
// server saw.
func ask(t *testing.T, from, to *nstest.NS, at string) (string, error) {
	t.Helper()
	var l net.Listener
	to.Do(t, func() (err error) { l, err = net.Listen("tcp", at); return err })
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, c.RemoteAddr().(*net.TCPAddr).IP)
			c.Close()
		}
	}()
	var got []byte
	err := ns.Do(from.Path, func() error {
		c, err := net.DialTimeout("tcp", at, 300*time.Millisecond)
		if err != nil {
			return err
		}
		defer c.Close()
		got, err = io.ReadAll(c)
		return err
	})
	return string(got), err
}

// eventually tries until it works or the test's time is over.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	var err error
	for range 40 {
		if err = try(); err == nil {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatalf("%s: %v", what, err)
}

func reaches(t *testing.T, from, to *nstest.NS, at, wantSource string) {
	t.Helper()
	eventually(t, "reach "+at, func() error {
		got, err := ask(t, from, to, at+":8080")
		if err == nil && got != wantSource {
			err = fmt.Errorf("it saw %s, want %s", got, wantSource)
		}
		return err
	})
}

func TestPodsReachEachOtherOverASharedLink(t *testing.T) {
	fabric := nstest.New(t)
	bridge(t, fabric, "lan", "")
	a, b := newPeer(t, 1), newPeer(t, 2)
	a.onLink(t, fabric, "lan", "192.168.7.1/24")
	b.onLink(t, fabric, "lan", "192.168.7.2/24")
	feed := &network.Feed{}
	feed.Set([]network.Peer{a.Peer, b.Peer})
	for _, p := range []*peer{a, b} {
		p.start(t, network.Config{Peers: feed})
	}
	reaches(t, a.pod, b.pod, b.podAddr(), a.podAddr())
	reaches(t, b.pod, a.pod, a.podAddr(), b.podAddr())
	reaches(t, a.NS, b.pod, b.podAddr(), "192.168.7.1")
	if name := network.VXLANLink; hasLink(a, name) {
		t.Errorf("%s was made, though the peers share a link", name)
	}

	t.Run("what somebody deletes comes back", func(t *testing.T) {
		a.Do(t, func() error {
			_, dst, err := net.ParseCIDR("10.244.2.0/24")
			if err != nil {
				return err
			}
			return netlink.RouteDel(&netlink.Route{Dst: dst})
		})
		reaches(t, a.pod, b.pod, b.podAddr(), a.podAddr())
	})
	t.Run("a peer that left loses its route", func(t *testing.T) {
		feed.Set([]network.Peer{a.Peer})
		eventually(t, "route gone", func() error {
			if routes := a.routes(t); strings.Contains(routes, "10.244.2.0/24") {
				return fmt.Errorf("routes: %s", routes)
			}
			return nil
		})
	})
	t.Run("Clean leaves nothing", func(t *testing.T) {
		if err := b.net.Clean(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func hasLink(p *peer, name string) bool {
	return ns.Do(p.Path, func() error { _, err := netlink.LinkByName(name); return err }) == nil
}

func (p *peer) routes(t *testing.T) string {
	t.Helper()
	var out []string
	p.Do(t, func() error {
		rs, err := netlink.RouteList(nil, netlink.FAMILY_V4)
		for _, r := range rs {
			out = append(out, r.String())
		}
		return err
	})
	return strings.Join(out, "\n")
}

func TestPodsReachEachOtherThroughTheOverlay(t *testing.T) {
	fabric := nstest.New(t) // a router between two links
	fabric.Forward(t)
	bridge(t, fabric, "lan1", "192.168.1.254/24")
	bridge(t, fabric, "lan2", "192.168.2.254/24")
	a, b := newPeer(t, 1), newPeer(t, 2)
	a.onLink(t, fabric, "lan1", "192.168.1.1/24")
	b.onLink(t, fabric, "lan2", "192.168.2.1/24")
	a.Route(t, "default", "192.168.1.254")
	b.Route(t, "default", "192.168.2.254")
	feed := &network.Feed{}
	feed.Set([]network.Peer{a.Peer, b.Peer})
	for _, p := range []*peer{a, b} {
		p.start(t, network.Config{Peers: feed})
	}
	reaches(t, a.pod, b.pod, b.podAddr(), a.podAddr())
	reaches(t, b.pod, a.pod, a.podAddr(), b.podAddr())
	reaches(t, a.NS, b.pod, b.podAddr(), "10.244.1.1")
	if mtu, err := a.net.MTU(); err != nil || mtu != 1450 {
		t.Errorf("mtu for pods: got %d, %v; want 1450", mtu, err)
	}

	t.Run("a lost device comes back", func(t *testing.T) {
		a.Do(t, func() error {
			l, err := netlink.LinkByName(network.VXLANLink)
			if err != nil {
				return err
			}
			return netlink.LinkDel(l)
		})
		reaches(t, a.pod, b.pod, b.podAddr(), a.podAddr())
	})
	t.Run("a peer that changes its address is followed", func(t *testing.T) {
		b.Do(t, func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			old, err := netlink.ParseAddr("192.168.2.1/24")
			if err != nil {
				return err
			}
			return netlink.AddrDel(l, old)
		})
		b.Address(t, "eth0", "192.168.2.77/24")
		_ = ns.Do(b.Path, func() error { return netlink.RouteAdd(&netlink.Route{Gw: net.IPv4(192, 168, 2, 254)}) })
		b.Addresses = []netip.Addr{addr("192.168.2.77")}
		feed.Set([]network.Peer{a.Peer, b.Peer})
		reaches(t, a.pod, b.pod, b.podAddr(), a.podAddr())
	})
}

func TestTrafficOutOfTheClusterIsMasqueraded(t *testing.T) {
	fabric := nstest.New(t)
	bridge(t, fabric, "lan", "192.168.7.254/24")
	a := newPeer(t, 1)
	a.onLink(t, fabric, "lan", "192.168.7.1/24")
	feed := &network.Feed{}
	feed.Set([]network.Peer{a.Peer})
	a.start(t, network.Config{Peers: feed, ClusterCIDRs: []netip.Prefix{prefix("10.244.0.0/16")}})
	reaches(t, a.pod, fabric, "192.168.7.254", "192.168.7.1")
	a.Do(t, func() error { // what many a firewall's start does
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.FlushRuleset()
		return c.Flush()
	})
	reaches(t, a.pod, fabric, "192.168.7.254", "192.168.7.1")
}

func TestAListOfPeersWithoutOurselvesDeletesNothing(t *testing.T) {
	fabric := nstest.New(t)
	bridge(t, fabric, "lan", "")
	a, b := newPeer(t, 1), newPeer(t, 2)
	a.onLink(t, fabric, "lan", "192.168.7.1/24")
	b.Addresses = []netip.Addr{addr("192.168.7.2")}
	feed := &network.Feed{}
	n, err := network.New(network.Config{Peer: a.Name, NetNS: a.Path, Peers: feed})
	if err != nil {
		t.Fatal(err)
	}
	for _, peers := range [][]network.Peer{{a.Peer, b.Peer}, nil} {
		feed.Set(peers)
		if err := n.Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if r := a.routes(t); !strings.Contains(r, "10.244.2.0/24") {
		t.Errorf("the route is gone:\n%s", r)
	}
}

func TestBeforeItIsSettledNothingIsDeleted(t *testing.T) {
	fabric := nstest.New(t)
	bridge(t, fabric, "lan", "")
	a, b := newPeer(t, 1), newPeer(t, 2)
	a.onLink(t, fabric, "lan", "192.168.7.1/24")
	b.Addresses = []netip.Addr{addr("192.168.7.2")}
	a.Do(t, func() error { // of an earlier run
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		_, dst, err := net.ParseCIDR("10.244.9.0/24")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{
			Dst: dst, Gw: net.IPv4(192, 168, 7, 9), LinkIndex: l.Attrs().Index, Protocol: network.RouteProtocol,
		})
	})
	feed := &network.Feed{}
	feed.Set([]network.Peer{a.Peer, b.Peer})
	var settled atomic.Bool
	n, err := network.New(network.Config{Peer: a.Name, NetNS: a.Path, Peers: feed, Settled: settled.Load, Local: []netip.Addr{addr("10.96.0.10")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := a.routes(t); !strings.Contains(r, "10.244.9.0/24") || !strings.Contains(r, "10.244.2.0/24") {
		t.Errorf("unsettled, want the old and the new route, have:\n%s", r)
	}
	settled.Store(true)
	if err := n.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := a.routes(t); strings.Contains(r, "10.244.9.0/24") {
		t.Errorf("settled, the old route is still there:\n%s", r)
	}
	if err := n.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := a.routes(t); strings.Contains(r, "10.244") {
		t.Errorf("after Clean:\n%s", r)
	}
	for _, l := range []string{network.LocalLink, network.VXLANLink, "skp0"} {
		if hasLink(a, l) {
			t.Errorf("after Clean: link %s", l)
		}
	}
}

func TestLocalAddressesAreAnsweredAndNeverASource(t *testing.T) {
	fabric := nstest.New(t)
	a := newPeer(t, 1)
	feed := &network.Feed{}
	feed.Set([]network.Peer{a.Peer})
	n, err := network.New(network.Config{Peer: a.Name, NetNS: a.Path, Peers: feed, Local: []netip.Addr{addr("10.96.0.10")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	bridge(t, fabric, "lan", "")
	a.onLink(t, fabric, "lan", "192.168.7.1/24")
	reaches(t, a.pod, a.NS, "10.96.0.10", a.podAddr())
	reaches(t, a.NS, a.pod, a.podAddr(), "192.168.7.1")
}
