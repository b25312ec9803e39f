package network

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"skein.dev/skein/network/cni"
	"skein.dev/skein/network/ns"
)

// kernel is an open netlink handle in the configured namespace.
type kernel struct {
	cfg    Config
	handle netns.NsHandle
	nl     *netlink.Handle
}

func openKernel(cfg Config) (*kernel, error) {
	h, err := ns.Open(cfg.NetNS)
	if err != nil {
		return nil, err
	}
	var nl *netlink.Handle
	if h.IsOpen() {
		nl, err = netlink.NewHandleAt(h, unix.NETLINK_ROUTE)
	} else {
		nl, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink: %w", err), closeHandle(h))
	}
	return &kernel{cfg: cfg, handle: h, nl: nl}, nil
}

func closeHandle(h netns.NsHandle) error {
	if !h.IsOpen() {
		return nil
	}
	return h.Close()
}

func (k *kernel) close() {
	k.nl.Close()
	_ = closeHandle(k.handle)
}

// ours reports whether an interface is made by us: it is no underlay.
func ours(name string) bool {
	return name == VXLANLink || name == LocalLink || strings.HasPrefix(name, cni.LinkPrefix)
}

// links lists the underlay: interfaces that are up, not ours, not loopback.
func (k *kernel) links() ([]link, error) {
	all, err := k.nl.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	addrs, err := k.nl.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []link
	for _, l := range all {
		a := l.Attrs()
		if ours(a.Name) || a.Flags&net.FlagLoopback != 0 || a.Flags&net.FlagUp == 0 {
			continue
		}
		u := link{index: a.Index, mtu: a.MTU}
		for _, x := range addrs {
			if p, ok := prefixOf(x.IPNet); ok && x.LinkIndex == a.Index && !p.Addr().IsLinkLocalUnicast() {
				u.prefixes = append(u.prefixes, p)
			}
		}
		if len(u.prefixes) > 0 {
			out = append(out, u)
		}
	}
	return out, nil
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}, false
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, ones), a.BitLen() == bits
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func hostNet(a netip.Addr) *net.IPNet { return ipNet(netip.PrefixFrom(a, a.BitLen())) }

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// forwarding lets the kernel forward packets of the families pods have.
func (k *kernel) forwarding(p plan) error {
	var errs []error
	if slices.ContainsFunc(p.local, func(c netip.Prefix) bool { return c.Addr().Is4() }) {
		errs = append(errs, setSysctl(k.cfg.NetNS, "net/ipv4/ip_forward", "1"))
	}
	if slices.ContainsFunc(p.local, func(c netip.Prefix) bool { return c.Addr().Is6() }) {
		errs = append(errs, setSysctl(k.cfg.NetNS, "net/ipv6/conf/all/forwarding", "1"))
	}
	return errors.Join(errs...)
}

func writeSysctl(name, value string) error {
	path := filepath.Join("/proc/sys", name)
	have, err := os.ReadFile(path)
	if err == nil && string(bytes.TrimSpace(have)) == value {
		return nil
	}
	return os.WriteFile(path, []byte(value), 0o644)
}

// local keeps the dummy interface with the addresses this peer answers. They
// have host scope: the kernel must not pick them as a source address.
func (k *kernel) local(want []netip.Addr, settled bool) error {
	l, err := k.nl.LinkByName(LocalLink)
	if notFound(err) {
		if len(want) == 0 {
			return nil
		}
		if err := k.createLocal(); err != nil {
			return err
		}
		l, err = k.nl.LinkByName(LocalLink)
	}
	if err != nil {
		return fmt.Errorf("find link %s: %w", LocalLink, err)
	}
	return k.addresses(l, want, unix.RT_SCOPE_HOST, settled)
}

// createLocal makes an interface that leads nowhere: a dummy, or where the
// kernel has none a bridge without ports, which is as good.
func (k *kernel) createLocal() error {
	la := netlink.NewLinkAttrs()
	la.Name, la.Flags = LocalLink, net.FlagUp
	err := k.nl.LinkAdd(&netlink.Dummy{LinkAttrs: la})
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = k.nl.LinkAdd(&netlink.Bridge{LinkAttrs: la})
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create link %s: %w", LocalLink, err)
	}
	return nil
}

// addresses makes want the addresses of l, link-local ones aside, and sets it
// up.
func (k *kernel) addresses(l netlink.Link, want []netip.Addr, scope int, settled bool) error {
	have, err := k.nl.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err)
	}
	present := map[netip.Addr]bool{}
	for _, h := range have {
		p, ok := prefixOf(h.IPNet)
		if !ok || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		present[p.Addr()] = true
		if settled && !slices.Contains(want, p.Addr()) {
			if err := k.nl.AddrDel(l, &h); err != nil {
				return fmt.Errorf("delete address %s: %w", p.Addr(), err)
			}
		}
	}
	for _, a := range want {
		if present[a] {
			continue
		}
		addr := &netlink.Addr{IPNet: hostNet(a), Scope: scope}
		if a.Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := k.nl.AddrReplace(l, addr); err != nil {
			return fmt.Errorf("add address %s to %s: %w", a, l.Attrs().Name, err)
		}
	}
	if l.Attrs().Flags&net.FlagUp == 0 {
		if err := k.nl.LinkSetUp(l); err != nil {
			return fmt.Errorf("set up %s: %w", l.Attrs().Name, err)
		}
	}
	return nil
}

func notFound(err error) bool {
	var e netlink.LinkNotFoundError
	return errors.As(err, &e)
}

// routes makes the routes of our protocol those of the plan; overlay is the
// index of the VXLAN device.
func (k *kernel) routes(p plan, overlay int, settled bool) error {
	have, err := k.ownRoutes()
	if err != nil {
		return err
	}
	want := map[netip.Prefix]netlink.Route{}
	for _, r := range p.routes {
		want[r.dst] = r.kernel(overlay)
	}
	var errs []error
	for _, h := range have {
		dst, ok := prefixOf(h.Dst)
		w, wanted := want[dst]
		switch {
		case !ok:
		case wanted && sameRoute(h, w):
			delete(want, dst)
		case !wanted && settled:
			if err := k.nl.RouteDel(&h); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("delete route to %s: %w", dst, err))
			}
		}
	}
	for dst, w := range want {
		if err := k.nl.RouteReplace(&w); err != nil {
			errs = append(errs, fmt.Errorf("add route to %s: %w", dst, err))
		}
	}
	return errors.Join(errs...)
}

func (r route) kernel(overlay int) netlink.Route {
	out := netlink.Route{Dst: ipNet(r.dst), Protocol: RouteProtocol, Family: familyOf(r.dst.Addr()), Table: unix.RT_TABLE_MAIN}
	if r.reject {
		out.Type = unix.RTN_UNREACHABLE
		return out
	}
	out.Type = unix.RTN_UNICAST
	out.Gw = r.via.AsSlice()
	out.LinkIndex = r.link
	out.Flags = int(netlink.FLAG_ONLINK)
	if r.overlay {
		out.LinkIndex = overlay
		out.Src = r.src.AsSlice()
	}
	return out
}

func sameRoute(h, w netlink.Route) bool {
	if h.Type != w.Type {
		return false
	}
	if w.Type == unix.RTN_UNREACHABLE {
		return true // IPv6 shows it on the loopback interface
	}
	return h.LinkIndex == w.LinkIndex && h.Gw.Equal(w.Gw) && h.Src.Equal(w.Src)
}

func (k *kernel) ownRoutes() ([]netlink.Route, error) {
	filter := &netlink.Route{Protocol: RouteProtocol, Table: unix.RT_TABLE_MAIN}
	var all []netlink.Route
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		have, err := k.nl.RouteListFiltered(f, filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		if err != nil && (f == unix.AF_INET || !errors.Is(err, unix.EAFNOSUPPORT)) {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		all = append(all, have...)
	}
	return all, nil
}

func (k *kernel) dropRoutes() error {
	have, err := k.ownRoutes()
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range have {
		if err := k.nl.RouteDel(&h); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("delete route to %s: %w", h.Dst, err))
		}
	}
	return errors.Join(errs...)
}

func (k *kernel) dropLinks() error {
	all, err := k.nl.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var errs []error
	for _, l := range all {
		if !ours(l.Attrs().Name) {
			continue
		}
		if err := k.nl.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("delete link %s: %w", l.Attrs().Name, err))
		}
	}
	return errors.Join(errs...)
}
