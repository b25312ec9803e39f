package network

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// overlay makes the VXLAN device and its entries for the plan's tunnels, and
// returns its index. Without tunnels it removes the device, and returns 0.
func (k *kernel) overlay(p plan, mtu int, settled bool) (int, error) {
	have, err := k.nl.LinkByName(VXLANLink)
	if err != nil && !notFound(err) {
		return 0, fmt.Errorf("find link %s: %w", VXLANLink, err)
	}
	exists := err == nil
	if len(p.tunnels) == 0 {
		if exists && settled {
			if err := k.nl.LinkDel(have); err != nil && !errors.Is(err, unix.ENODEV) {
				return 0, fmt.Errorf("delete link %s: %w", VXLANLink, err)
			}
		}
		return 0, nil
	}
	want := k.device(p, mtu)
	if exists && !sameDevice(have, want) {
		// Its identity cannot be changed in place; routes follow it.
		if err := k.nl.LinkDel(have); err != nil {
			return 0, fmt.Errorf("replace link %s: %w", VXLANLink, err)
		}
		exists = false
	}
	if !exists {
		if err := k.nl.LinkAdd(want); err != nil {
			return 0, fmt.Errorf("create link %s: %w", VXLANLink, err)
		}
		if have, err = k.nl.LinkByName(VXLANLink); err != nil {
			return 0, fmt.Errorf("find link %s: %w", VXLANLink, err)
		}
	}
	var gates []netip.Addr
	for _, is4 := range []bool{true, false} {
		if g := gate(p.own, is4); g.IsValid() {
			gates = append(gates, g)
		}
	}
	if err := k.addresses(have, gates, unix.RT_SCOPE_UNIVERSE, settled); err != nil {
		return 0, err
	}
	index := have.Attrs().Index
	return index, errors.Join(k.forwardEntries(index, p.tunnels, settled), k.gateEntries(index, p.tunnels, settled))
}

func (k *kernel) device(p plan, mtu int) *netlink.Vxlan {
	la := netlink.NewLinkAttrs()
	la.Name, la.HardwareAddr, la.MTU = VXLANLink, gateMAC(p.own), mtu-vxlanOverhead
	return &netlink.Vxlan{
		LinkAttrs: la, VxlanId: k.cfg.VNI, Port: k.cfg.VXLANPort,
		SrcAddr: p.own.Addresses[0].AsSlice(), Learning: false,
	}
}

func sameDevice(have netlink.Link, want *netlink.Vxlan) bool {
	v, ok := have.(*netlink.Vxlan)
	return ok && v.VxlanId == want.VxlanId && v.Port == want.Port && v.SrcAddr.Equal(want.SrcAddr) && !v.Learning &&
		bytes.Equal(v.HardwareAddr, want.HardwareAddr) && v.MTU == want.MTU
}

// forwardEntries are the bridge entries: at which machine a MAC is.
func (k *kernel) forwardEntries(index int, tunnels []tunnel, settled bool) error {
	var want []netlink.Neigh
	for _, t := range tunnels {
		want = append(want, netlink.Neigh{
			LinkIndex: index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT,
			IP: t.vtep.AsSlice(), HardwareAddr: t.mac,
		})
	}
	return k.entries(index, unix.AF_BRIDGE, want, settled)
}

// gateEntries are the neighbour entries: which MAC a tunnel's far end has.
func (k *kernel) gateEntries(index int, tunnels []tunnel, settled bool) error {
	var errs []error
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		var want []netlink.Neigh
		for _, t := range tunnels {
			if familyOf(t.gate) == f {
				want = append(want, netlink.Neigh{
					LinkIndex: index, Family: f, State: netlink.NUD_PERMANENT,
					IP: t.gate.AsSlice(), HardwareAddr: t.mac,
				})
			}
		}
		errs = append(errs, k.entries(index, f, want, settled))
	}
	return errors.Join(errs...)
}

func (k *kernel) entries(index, family int, want []netlink.Neigh, settled bool) error {
	have, err := k.nl.NeighList(index, family)
	if err != nil {
		if family == unix.AF_INET6 && len(want) == 0 {
			return nil
		}
		return fmt.Errorf("list neighbours of %s: %w", VXLANLink, err)
	}
	var errs []error
	for _, w := range want {
		if slices.ContainsFunc(have, func(h netlink.Neigh) bool { return sameEntry(h, w) }) {
			continue
		}
		if err := k.nl.NeighSet(&w); err != nil {
			errs = append(errs, fmt.Errorf("add neighbour %s %s: %w", w.IP, w.HardwareAddr, err))
		}
	}
	for _, h := range have {
		if !settled || h.State&netlink.NUD_PERMANENT == 0 || isMulticast(h.HardwareAddr) ||
			slices.ContainsFunc(want, func(w netlink.Neigh) bool { return sameEntry(h, w) }) {
			continue
		}
		if err := k.nl.NeighDel(&h); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("delete neighbour %s %s: %w", h.IP, h.HardwareAddr, err))
		}
	}
	return errors.Join(errs...)
}

func sameEntry(h, w netlink.Neigh) bool {
	return h.IP.Equal(w.IP) && bytes.Equal(h.HardwareAddr, w.HardwareAddr)
}

func isMulticast(mac net.HardwareAddr) bool { return len(mac) == 0 || mac[0]&1 == 1 }
