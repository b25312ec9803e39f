package dnsaddon

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"skein.dev/skein/api/member"
)

// build makes the entry of a service from its objects, which it only reads.
// It is pure. dead are the peers that are confirmed dead: their endpoints are
// left out, unless none would be left.
func build(svc *corev1.Service, eps []*discoveryv1.EndpointSlice, dead map[member.Name]bool) *entry {
	e := &entry{namespace: strings.ToLower(svc.Namespace), name: strings.ToLower(svc.Name)}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		if t := strings.TrimSuffix(svc.Spec.ExternalName, "."); t != "" {
			e.external = strings.ToLower(t) + "."
		}
		return e
	}
	if svc.Spec.ClusterIP != corev1.ClusterIPNone {
		e.clusterIP(svc)
		return e
	}
	e.headless = true
	e.hosts = map[string][]netip.Addr{}
	use := usable(svc, eps, nil)
	if alive := usable(svc, eps, dead); len(alive) > 0 {
		use = alive
	}
	for _, u := range use {
		e.host(u)
	}
	slices.SortFunc(e.addrs, netip.Addr.Compare)
	e.addrs = slices.Compact(e.addrs)
	slices.SortFunc(e.ports, comparePorts)
	e.ports = slices.Compact(e.ports)
	return e
}

func comparePorts(a, b port) int {
	if c := strings.Compare(a.service+a.proto+a.host, b.service+b.proto+b.host); c != 0 {
		return c
	}
	return int(a.number) - int(b.number)
}

func (e *entry) clusterIP(svc *corev1.Service) {
	all := svc.Spec.ClusterIPs
	if len(all) == 0 {
		all = []string{svc.Spec.ClusterIP}
	}
	for _, s := range all {
		if a, err := netip.ParseAddr(s); err == nil {
			e.addrs = append(e.addrs, a.Unmap())
		}
	}
	for _, p := range svc.Spec.Ports {
		if p.Port > 0 && p.Port <= 65535 {
			e.ports = append(e.ports, newPort(p.Name, p.Protocol, p.Port, ""))
		}
	}
}

func newPort(name string, proto corev1.Protocol, number int32, host string) port {
	if proto == "" {
		proto = corev1.ProtocolTCP
	}
	p := port{proto: "_" + strings.ToLower(string(proto)), number: uint16(number), host: host}
	if name != "" {
		p.service = "_" + strings.ToLower(name)
	}
	return p
}

// endpoint is one endpoint together with its slice's ports.
type endpoint struct {
	discoveryv1.Endpoint
	ports []discoveryv1.EndpointPort
}

// usable lists the endpoints whose addresses are published: the ready ones,
// or all when the service says so. Readiness is unknown: then it is assumed.
func usable(svc *corev1.Service, eps []*discoveryv1.EndpointSlice, dead map[member.Name]bool) []endpoint {
	var out []endpoint
	for _, s := range eps {
		if s.AddressType != discoveryv1.AddressTypeIPv4 && s.AddressType != discoveryv1.AddressTypeIPv6 {
			continue
		}
		for _, x := range s.Endpoints {
			ready := x.Conditions.Ready == nil || *x.Conditions.Ready
			gone := x.NodeName != nil && dead[member.Name(*x.NodeName)]
			if len(x.Addresses) > 0 && (ready || svc.Spec.PublishNotReadyAddresses) && !gone {
				out = append(out, endpoint{x, s.Ports})
			}
		}
	}
	return out
}

// host adds one endpoint: its addresses to the service's name and under a
// name of its own, which without a hostname is made of the address.
func (e *entry) host(u endpoint) {
	for _, s := range u.Addresses {
		a, err := netip.ParseAddr(s)
		if err != nil {
			continue
		}
		a = a.Unmap()
		label := dashed(a)
		if u.Hostname != nil && *u.Hostname != "" {
			label = strings.ToLower(*u.Hostname)
		}
		e.addrs = append(e.addrs, a)
		if !slices.Contains(e.hosts[label], a) {
			e.hosts[label] = append(e.hosts[label], a)
		}
		for _, p := range u.ports {
			if p.Port == nil || *p.Port <= 0 || *p.Port > 65535 {
				continue
			}
			name, proto := "", corev1.ProtocolTCP
			if p.Name != nil {
				name = *p.Name
			}
			if p.Protocol != nil {
				proto = *p.Protocol
			}
			e.ports = append(e.ports, newPort(name, proto, *p.Port, label))
		}
	}
}

// dashed is an address as a label: 10-0-0-1, or fd00--1 for IPv6.
func dashed(a netip.Addr) string {
	return strings.NewReplacer(".", "-", ":", "-").Replace(a.String())
}

// undashed reads what dashed wrote, in any of IPv6's spellings.
func undashed(label string) (netip.Addr, bool) {
	if strings.Count(label, "-") == 3 && !strings.Contains(label, "--") {
		if a, err := netip.ParseAddr(strings.ReplaceAll(label, "-", ".")); err == nil {
			return a, true
		}
	}
	a, err := netip.ParseAddr(strings.ReplaceAll(label, "-", ":"))
	return a, err == nil
}

func sameDead(a, b map[member.Name]bool) bool { return maps.Equal(a, b) }
