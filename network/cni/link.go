package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// RouteProtocol marks the host's routes to pods, so that they can be told
// from everybody else's (/etc/iproute2/rt_protos leaves the number free).
const RouteProtocol = 84

// LinkPrefix begins the names of the host's ends of the veth pairs.
const LinkPrefix = "skp"

// pair is one pod's veth pair.
type pair struct {
	host, pod string // interface names
	netns     string // path of the pod's network namespace
	mtu       int
	addrs     []netip.Addr

	hostMAC, podMAC net.HardwareAddr // set by create
}

// hostName is the name of the host's end: a function of the owner, so that
// DEL needs no memory, and at most 15 bytes long as the kernel wants.
func hostName(o Owner) string {
	sum := sha256.Sum256([]byte(o.Container + "/" + o.Interface))
	return LinkPrefix + hex.EncodeToString(sum[:6])
}

// gateway is the pod's next hop for the family of a. It is link-local and
// configured nowhere: a permanent neighbour entry leads to the host's end.
func gateway(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.AddrFrom4([4]byte{169, 254, 1, 1})
	}
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: 1})
}

func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func everything(a netip.Addr) *net.IPNet {
	zero := make(net.IP, a.BitLen()/8)
	return &net.IPNet{IP: zero, Mask: net.CIDRMask(0, a.BitLen())}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// create makes the pair and everything that hangs on it. On error the caller
// removes the host's end, and the rest goes with it.
func (p *pair) create() error {
	target, err := netns.GetFromPath(p.netns)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", p.netns, err)
	}
	defer target.Close()
	if err := remove(p.host); err != nil {
		return err
	}
	la := netlink.NewLinkAttrs()
	la.Name, la.MTU, la.Flags = p.host, p.mtu, net.FlagUp
	veth := &netlink.Veth{LinkAttrs: la, PeerName: p.pod, PeerNamespace: netlink.NsFd(int(target))}
	if p.mtu > 0 {
		veth.PeerMTU = uint32(p.mtu)
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("create veth %s: %w", p.host, err)
	}
	host, err := netlink.LinkByName(p.host)
	if err != nil {
		return fmt.Errorf("find veth %s: %w", p.host, err)
	}
	p.hostMAC = host.Attrs().HardwareAddr
	in, err := netlink.NewHandleAt(target, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink in %s: %w", p.netns, err)
	}
	defer in.Close()
	if err := p.configurePod(in); err != nil {
		return err
	}
	for _, a := range p.addrs {
		if err := neighbour(netlink.NeighSet, host, a, p.podMAC); err != nil {
			return fmt.Errorf("add neighbour %s: %w", a, err)
		}
		r := &netlink.Route{
			LinkIndex: host.Attrs().Index, Dst: single(a),
			Scope: netlink.SCOPE_LINK, Protocol: RouteProtocol,
		}
		if err := netlink.RouteReplace(r); err != nil {
			return fmt.Errorf("add route to %s: %w", a, err)
		}
	}
	return nil
}

// configurePod sets up the pod's end through a handle in its namespace.
func (p *pair) configurePod(in *netlink.Handle) error {
	l, err := in.LinkByName(p.pod)
	if err != nil {
		return fmt.Errorf("find %s in the pod: %w", p.pod, err)
	}
	p.podMAC = l.Attrs().HardwareAddr
	for _, a := range p.addrs {
		addr := &netlink.Addr{IPNet: single(a)}
		if a.Is6() {
			addr.Flags = unix.IFA_F_NODAD // the allocator guarantees it is unique
		}
		if err := in.AddrAdd(l, addr); err != nil {
			return fmt.Errorf("add address %s: %w", a, err)
		}
	}
	if err := in.LinkSetUp(l); err != nil {
		return fmt.Errorf("set up %s: %w", p.pod, err)
	}
	for _, a := range p.addrs {
		gw := gateway(a)
		if err := neighbour(in.NeighSet, l, gw, p.hostMAC); err != nil {
			return fmt.Errorf("add gateway's neighbour entry: %w", err)
		}
		r := &netlink.Route{
			LinkIndex: l.Attrs().Index, Dst: everything(a), Gw: gw.AsSlice(),
			Flags: int(netlink.FLAG_ONLINK),
		}
		if err := in.RouteAdd(r); err != nil {
			return fmt.Errorf("add default route: %w", err)
		}
	}
	return nil
}

func neighbour(set func(*netlink.Neigh) error, l netlink.Link, a netip.Addr, mac net.HardwareAddr) error {
	return set(&netlink.Neigh{
		LinkIndex: l.Attrs().Index, Family: family(a), State: netlink.NUD_PERMANENT,
		IP: a.AsSlice(), HardwareAddr: mac,
	})
}

// remove deletes the host's end, and with it the pod's, the routes and the
// neighbour entries. It is no error if it is gone.
func remove(name string) error {
	l, err := netlink.LinkByName(name)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link %s: %w", name, err)
	}
	return nil
}

func gone(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound)
}

// routed reports whether the host already has a route of ours to a: then a
// pod uses the address, though the data directory does not know.
func routed(a netip.Addr) bool {
	r := &netlink.Route{Dst: single(a), Protocol: RouteProtocol}
	have, err := netlink.RouteListFiltered(family(a), r, netlink.RT_FILTER_DST|netlink.RT_FILTER_PROTOCOL)
	return err == nil && len(have) > 0
}

// check fails with what is missing of the pair.
func (p pair) check() error {
	host, err := netlink.LinkByName(p.host)
	if err != nil {
		return fmt.Errorf("find link %s: %w", p.host, err)
	}
	for _, a := range p.addrs {
		r := &netlink.Route{Dst: single(a), LinkIndex: host.Attrs().Index}
		have, err := netlink.RouteListFiltered(family(a), r, netlink.RT_FILTER_DST|netlink.RT_FILTER_OIF)
		if err != nil {
			return fmt.Errorf("list routes to %s: %w", a, err)
		}
		if len(have) == 0 {
			return fmt.Errorf("check %s: no route to %s", p.host, a)
		}
	}
	target, err := netns.GetFromPath(p.netns)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("check %s: its network namespace is gone: %w", p.host, err)
	} else if err != nil {
		return fmt.Errorf("open network namespace %s: %w", p.netns, err)
	}
	defer target.Close()
	in, err := netlink.NewHandleAt(target, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink in %s: %w", p.netns, err)
	}
	defer in.Close()
	l, err := in.LinkByName(p.pod)
	if err != nil {
		return fmt.Errorf("find %s in the pod: %w", p.pod, err)
	}
	for _, a := range p.addrs {
		if err := hasAddress(in, l, a); err != nil {
			return err
		}
	}
	return nil
}

func hasAddress(in *netlink.Handle, l netlink.Link, a netip.Addr) error {
	have, err := in.AddrList(l, family(a))
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err)
	}
	for _, h := range have {
		if h.IP.Equal(a.AsSlice()) {
			return nil
		}
	}
	return fmt.Errorf("check %s: the pod has lost its address %s", l.Attrs().Name, a)
}
