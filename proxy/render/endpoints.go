package render

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"skein.dev/skein/api/member"
)

// endpoint is one address and port behind a service's port.
type endpoint struct {
	at          netip.AddrPort
	peer        member.Name // empty: not on a peer
	ready       bool
	terminating bool // no longer ready, but still serving
	hints       *discoveryv1.EndpointHints
}

// find lists the endpoints behind a port, of one family.
func find(eps []*discoveryv1.EndpointSlice, port corev1.ServicePort, is4 bool) []endpoint {
	want := discoveryv1.AddressTypeIPv4
	if !is4 {
		want = discoveryv1.AddressTypeIPv6
	}
	var out []endpoint
	for _, s := range eps {
		if s.AddressType != want {
			continue
		}
		for _, p := range s.Ports {
			if number, ok := match(p, port); ok {
				out = appendEndpoints(out, s.Endpoints, number, is4)
			}
		}
	}
	return out
}

// match reports whether a slice's port is the service's, and its number.
func match(p discoveryv1.EndpointPort, want corev1.ServicePort) (uint16, bool) {
	if p.Port == nil || *p.Port <= 0 || *p.Port > 65535 {
		return 0, false
	}
	name, proto := "", corev1.ProtocolTCP
	if p.Name != nil {
		name = *p.Name
	}
	if p.Protocol != nil {
		proto = *p.Protocol
	}
	wantProto := want.Protocol
	if wantProto == "" {
		wantProto = corev1.ProtocolTCP
	}
	return uint16(*p.Port), name == want.Name && proto == wantProto
}

func appendEndpoints(out []endpoint, in []discoveryv1.Endpoint, port uint16, is4 bool) []endpoint {
	for _, e := range in {
		// By definition all addresses of an endpoint are interchangeable,
		// and consumers use the first.
		if len(e.Addresses) == 0 {
			continue
		}
		a, err := netip.ParseAddr(e.Addresses[0])
		if err != nil || a.Unmap().Is4() != is4 {
			continue
		}
		c := e.Conditions
		x := endpoint{
			at:          netip.AddrPortFrom(a.Unmap(), port),
			ready:       c.Ready == nil || *c.Ready,
			terminating: c.Terminating != nil && *c.Terminating && (c.Serving == nil || *c.Serving),
			hints:       e.Hints,
		}
		if e.NodeName != nil {
			x.peer = member.Name(*e.NodeName)
		}
		out = append(out, x)
	}
	return out
}

// choose picks the endpoints that get connections: the ready ones, or when
// there are none those that terminate but still serve; without those of dead
// peers, unless none would be left; the nearest where the slices give hints.
func choose(all []endpoint, at Place, localOnly bool) []endpoint {
	if localOnly {
		all = filter(all, func(e endpoint) bool { return e.peer == at.Peer })
	}
	alive := filter(all, func(e endpoint) bool { return !at.Dead[e.peer] })
	for _, set := range [][]endpoint{alive, all} {
		for _, usable := range []func(endpoint) bool{
			func(e endpoint) bool { return e.ready },
			func(e endpoint) bool { return e.terminating },
		} {
			if use := filter(set, usable); len(use) > 0 {
				return nearest(use, at)
			}
		}
	}
	return nil
}

// nearest applies the hints of topology-aware routing (KEP-2433, KEP-3015):
// the same node's, else the same zone's. Hints count only when every endpoint
// has them, because in between the slices are being rewritten.
func nearest(use []endpoint, at Place) []endpoint {
	node, zone := true, at.Zone != ""
	for _, e := range use {
		node = node && e.hints != nil && len(e.hints.ForNodes) > 0
		zone = zone && e.hints != nil && len(e.hints.ForZones) > 0
	}
	if node {
		if near := filter(use, func(e endpoint) bool { return forNode(e.hints, at.Peer) }); len(near) > 0 {
			return near
		}
	}
	if zone {
		if near := filter(use, func(e endpoint) bool { return forZone(e.hints, at.Zone) }); len(near) > 0 {
			return near
		}
	}
	return use
}

func forNode(h *discoveryv1.EndpointHints, peer member.Name) bool {
	for _, n := range h.ForNodes {
		if n.Name == string(peer) {
			return true
		}
	}
	return false
}

func forZone(h *discoveryv1.EndpointHints, zone string) bool {
	for _, z := range h.ForZones {
		if z.Name == zone {
			return true
		}
	}
	return false
}

func filter(in []endpoint, keep func(endpoint) bool) []endpoint {
	var out []endpoint
	for _, e := range in {
		if keep(e) {
			out = append(out, e)
		}
	}
	return out
}
