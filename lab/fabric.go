package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The fabric is a network namespace with one bridge and a port for each peer,
// and no way out: what peers send to elsewhere reaches the bridge's address
// and ends there, because nothing forwards it. A partition is a second bridge
// that some ports are moved to; so it needs no rule, and links stay up, as
// when a switch behind them fails.

const (
	fabricNS   = "fabric"
	bridge     = "mesh"
	peerDevice = "eth0"
)

// fabricPrefix is of the range for benchmarks of network devices (RFC 2544),
// which no real network has.
func fabricPrefix() netip.Prefix { return netip.MustParsePrefix("198.18.0.0/24") }

func gateway() netip.Addr { return fabricPrefix().Addr().Next() }

func peerAddress(i int) netip.Addr {
	a := fabricPrefix().Addr().As4()
	a[3] = byte(11 + i)
	return netip.AddrFrom4(a)
}

// within opens netlink in a pinned namespace.
func within(path string, f func(h *netlink.Handle, ns int) error) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open namespace: %w", err)
	}
	defer func() { _ = file.Close() }()
	h, err := netlink.NewHandleAt(netns.NsHandle(file.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink in %s: %w", path, err)
	}
	defer h.Close()
	return f(h, int(file.Fd()))
}

// ensureFabric makes the fabric and the links of the peers that lack one.
func ensureFabric(dir string, peers []Peer) error {
	fabric := pin(dir, fabricNS)
	if err := pinNamespace(fabric); err != nil {
		return err
	}
	return within(fabric, func(h *netlink.Handle, _ int) error {
		if err := ensureBridge(h, bridge); err != nil {
			return err
		}
		if err := ensureAddress(h, bridge, gateway()); err != nil {
			return err
		}
		for _, p := range peers {
			if err := ensurePeer(h, dir, p); err != nil {
				return fmt.Errorf("link peer %s: %w", p.Name, err)
			}
		}
		return nil
	})
}

func ensureBridge(h *netlink.Handle, name string) error {
	off := false
	err := h.LinkAdd(&netlink.Bridge{LinkAttrs: named(name), MulticastSnooping: &off})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make bridge: %w", err)
	}
	return linkUp(h, name)
}

func ensurePeer(fabric *netlink.Handle, dir string, p Peer) error {
	path := pin(dir, p.Name)
	if err := pinNamespace(path); err != nil {
		return err
	}
	return within(path, func(h *netlink.Handle, ns int) error {
		if _, err := h.LinkByName(peerDevice); err != nil {
			veth := &netlink.Veth{LinkAttrs: named(p.Name), PeerName: peerDevice, PeerNamespace: netlink.NsFd(ns)}
			if err := fabric.LinkAdd(veth); err != nil {
				return fmt.Errorf("make veth: %w", err)
			}
		}
		if err := plug(fabric, p.Name, bridgeOf(p.Cut)); err != nil {
			return err
		}
		if err := linkUp(h, "lo"); err != nil {
			return err
		}
		if err := ensureAddress(h, peerDevice, p.Address); err != nil {
			return err
		}
		// Without a default route the kernel refuses what is sent to service
		// addresses before any rule can redirect it.
		dev, err := h.LinkByName(peerDevice)
		if err != nil {
			return fmt.Errorf("find %s: %w", peerDevice, err)
		}
		route := &netlink.Route{LinkIndex: dev.Attrs().Index, Gw: gateway().AsSlice()}
		if err := h.RouteReplace(route); err != nil {
			return fmt.Errorf("set default route: %w", err)
		}
		return nil
	})
}

// bridgeOf names the bridge of a partition.
func bridgeOf(cut int) string {
	if cut == 0 {
		return bridge
	}
	return fmt.Sprintf("cut%d", cut)
}

// rewire moves every peer's port to the bridge of its partition and removes
// the bridges of partitions that are over.
func rewire(dir string, peers []Peer) error {
	return within(pin(dir, fabricNS), func(h *netlink.Handle, _ int) error {
		used := map[string]bool{bridge: true}
		for _, p := range peers {
			used[bridgeOf(p.Cut)] = true
			if err := plug(h, p.Name, bridgeOf(p.Cut)); err != nil {
				return fmt.Errorf("rewire peer %s: %w", p.Name, err)
			}
		}
		links, err := h.LinkList()
		if err != nil {
			return fmt.Errorf("list links: %w", err)
		}
		for _, l := range links {
			if l.Type() == "bridge" && !used[l.Attrs().Name] {
				if err := h.LinkDel(l); err != nil {
					return fmt.Errorf("remove bridge: %w", err)
				}
			}
		}
		return nil
	})
}

// plug makes a port part of a bridge, which is made if it is missing.
func plug(h *netlink.Handle, port, to string) error {
	if err := ensureBridge(h, to); err != nil {
		return err
	}
	br, err := h.LinkByName(to)
	if err != nil {
		return fmt.Errorf("find bridge: %w", err)
	}
	l, err := h.LinkByName(port)
	if err != nil {
		return fmt.Errorf("find port: %w", err)
	}
	if l.Attrs().MasterIndex != br.Attrs().Index {
		if err := h.LinkSetMaster(l, br); err != nil {
			return fmt.Errorf("plug port: %w", err)
		}
	}
	return linkUp(h, port)
}

func linkUp(h *netlink.Handle, name string) error {
	l, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	if err := h.LinkSetUp(l); err != nil {
		return fmt.Errorf("set link %s up: %w", name, err)
	}
	return nil
}

func ensureAddress(h *netlink.Handle, name string, a netip.Addr) error {
	l, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	ip := &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(fabricPrefix().Bits(), 32)}
	if err := h.AddrReplace(l, &netlink.Addr{IPNet: ip}); err != nil {
		return fmt.Errorf("set address of %s: %w", name, err)
	}
	return linkUp(h, name)
}

func named(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}
