package network

import (
	"crypto/sha256"
	"net"
	"net/netip"
	"slices"

	"skein.dev/skein/api/member"
)

// Overlay says when packets between peers are wrapped in VXLAN.
type Overlay string

// The ways between peers.
const (
	OverlayAuto   Overlay = ""       // where two peers share no link
	OverlayAlways Overlay = "Always" // also where they do: the fabric drops pod addresses
	OverlayNever  Overlay = "Never"  // the fabric itself routes pod ranges
)

// link is one interface of the machine with its addresses' subnets.
type link struct {
	index    int
	mtu      int
	prefixes []netip.Prefix
}

// route leads to one peer's pod range: through a gateway on a shared link, or
// with overlay set through the VXLAN device.
type route struct {
	dst     netip.Prefix
	via     netip.Addr
	link    int // interface index; 0 with overlay, when it is not yet known
	overlay bool
	src     netip.Addr // preferred source, only with overlay
	reject  bool       // our own range: what no pod has is unreachable
}

// tunnel is one peer behind the VXLAN device: packets for the address gate go
// to the MAC, packets for the MAC to the machine at vtep.
type tunnel struct {
	gate netip.Addr
	mac  net.HardwareAddr
	vtep netip.Addr
}

// plan is the state the kernel should be in.
type plan struct {
	routes  []route
	tunnels []tunnel
	own     Peer
	local   []netip.Prefix // the cluster's pod ranges: not masqueraded between
}

// makePlan computes the desired state. It is pure. A peer without a pod range
// or address is left out; without the peer itself in peers the plan is empty.
func makePlan(name member.Name, peers []Peer, links []link, overlay Overlay, cluster []netip.Prefix) plan {
	var p plan
	local := slices.Clone(cluster)
	for _, peer := range peers {
		local = append(local, peer.PodCIDRs...)
		if peer.Name == name {
			p.own = peer
		}
	}
	p.local = merge(local)
	for _, c := range p.own.PodCIDRs {
		p.routes = append(p.routes, route{dst: c.Masked(), reject: true})
	}
	for _, peer := range peers {
		if peer.Name != name && len(peer.Addresses) > 0 {
			p.addPeer(peer, links, overlay)
		}
	}
	return p
}

func (p *plan) addPeer(peer Peer, links []link, overlay Overlay) {
	for _, c := range peer.PodCIDRs {
		c = c.Masked()
		is4 := c.Addr().Is4()
		if overlay != OverlayAlways {
			if via, l, ok := direct(peer, links, is4); ok {
				p.routes = append(p.routes, route{dst: c, via: via, link: l})
				continue
			}
		}
		src := gate(p.own, is4)
		if overlay == OverlayNever || !src.IsValid() || len(p.own.Addresses) == 0 {
			continue
		}
		g := gate(peer, is4)
		p.routes = append(p.routes, route{dst: c, via: g, overlay: true, src: src})
		t := tunnel{gate: g, mac: gateMAC(peer), vtep: peer.Addresses[0]}
		if !slices.ContainsFunc(p.tunnels, func(o tunnel) bool { return o.gate == t.gate }) {
			p.tunnels = append(p.tunnels, t)
		}
	}
}

// direct finds an address of the peer on a link that this machine has, too.
func direct(peer Peer, links []link, is4 bool) (via netip.Addr, index int, ok bool) {
	for _, a := range peer.Addresses {
		if a.Is4() != is4 {
			continue
		}
		for _, l := range links {
			for _, pre := range l.prefixes {
				if pre.Contains(a) && !pre.IsSingleIP() {
					return a, l.index, true
				}
			}
		}
	}
	return netip.Addr{}, 0, false
}

// gate is a peer's own address within its pod range, the first after the
// network's: the far end of the tunnel, and the source of what the machine
// itself sends into it, so that answers come back the same way.
func gate(p Peer, is4 bool) netip.Addr {
	for _, c := range p.PodCIDRs {
		if c.Addr().Is4() == is4 {
			return c.Masked().Addr().Next()
		}
	}
	return netip.Addr{}
}

// gateMAC is the MAC of a peer's VXLAN device: a function of its first pod
// range, so peers need not tell each other.
func gateMAC(p Peer) net.HardwareAddr {
	if len(p.PodCIDRs) == 0 {
		return nil
	}
	sum := sha256.Sum256([]byte(p.PodCIDRs[0].Masked().String()))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^1 | 2 // unicast, locally administered
	return mac
}

// merge sorts prefixes and drops those that others cover.
func merge(in []netip.Prefix) []netip.Prefix {
	all := make([]netip.Prefix, 0, len(in))
	for _, p := range in {
		all = append(all, p.Masked())
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var out []netip.Prefix
	for _, p := range all {
		if n := len(out); n > 0 && out[n-1].Overlaps(p) {
			continue // sorted: the earlier one covers it
		}
		out = append(out, p)
	}
	return out
}
