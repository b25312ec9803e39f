// Package flow makes the kernel's connection tracking forget flows.
//
// Its invariant: only flows of connectionless protocols to a given service are
// touched; a TCP connection notices by itself that its backend is gone.
package flow

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"skein.dev/skein/network/lb"
	"skein.dev/skein/network/ns"
)

// Reap deletes, in the network namespace at the path (empty: the process's),
// the UDP flows to services' fronts that do not lead to one of their
// backends: a client that keeps sending from one port would be sent to a dead
// address for as long as it does. Services of other protocols are ignored.
func Reap(netns string, services []lb.Service) error {
	f := filter{}
	families := map[netlink.InetFamily]bool{}
	for _, s := range services {
		if s.Front.Protocol != lb.UDP {
			continue
		}
		live := map[netip.AddrPort]bool{}
		for _, b := range s.Backends {
			live[b] = true
		}
		f[s.Front] = live
		if s.Front.Addr.Is4() {
			families[unix.AF_INET] = true
		} else {
			families[unix.AF_INET6] = true
		}
	}
	if len(f) == 0 {
		return nil
	}
	nl, err := handle(netns)
	if err != nil {
		return err
	}
	defer nl.Close()
	var errs []error
	for family := range families {
		if _, err := nl.ConntrackDeleteFilters(netlink.ConntrackTable, family, f); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("forget flows: %w", err))
		}
	}
	return errors.Join(errs...)
}

func handle(path string) (*netlink.Handle, error) {
	h, err := ns.Open(path)
	if err != nil {
		return nil, err
	}
	if !h.IsOpen() {
		nl, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
		if err != nil {
			return nil, fmt.Errorf("open conntrack: %w", err)
		}
		return nl, nil
	}
	defer h.Close()
	nl, err := netlink.NewHandleAt(h, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open conntrack: %w", err)
	}
	return nl, nil
}

// filter maps the fronts looked at to their live backends.
type filter map[lb.Front]map[netip.AddrPort]bool

// MatchConntrackFlow implements netlink's filter: true deletes the flow.
func (f filter) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	if c.Forward.Protocol != uint8(lb.UDP) {
		return false
	}
	dst := addrPort(c.Forward.DstIP, c.Forward.DstPort)
	live, ok := f[lb.Front{Addr: dst.Addr(), Protocol: lb.UDP, Port: dst.Port()}]
	if !ok {
		all := netip.IPv4Unspecified()
		if dst.Addr().Is6() {
			all = netip.IPv6Unspecified()
		}
		// A node port's flow is one that was translated.
		live, ok = f[lb.Front{Addr: all, Protocol: lb.UDP, Port: dst.Port()}]
		ok = ok && addrPort(c.Reverse.SrcIP, c.Reverse.SrcPort) != dst
	}
	// Where the answers come from is where the packets went.
	return ok && !live[addrPort(c.Reverse.SrcIP, c.Reverse.SrcPort)]
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}
