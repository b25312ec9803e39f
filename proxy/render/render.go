// Package render turns Services and EndpointSlices into what a peer's kernel
// shall do with connections to them.
//
// It is pure. Its invariant: what it returns depends on its arguments alone,
// and no view of who lives ever takes a service's last endpoints away.
package render

import (
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"skein.dev/skein/api/member"
	"skein.dev/skein/network/lb"
)

// The labels by which a Service opts out of being proxied.
const (
	labelProxyName = "service.kubernetes.io/service-proxy-name"
	labelHeadless  = "service.kubernetes.io/headless"
)

// Place is the peer that services are rendered for.
type Place struct {
	Peer member.Name
	Zone string
	// Dead are the peers whose endpoints are out of reach, confirmed.
	Dead map[member.Name]bool
	// Own are addresses that the peer answers itself, such as the cluster
	// DNS: services there are not proxied.
	Own []netip.Addr
}

// Service renders one service with its slices: a front for each address and
// port it is reached at, ordered by front. Slices of other address types than
// IPv4 and IPv6 are ignored. Objects are only read.
func Service(svc *corev1.Service, eps []*discoveryv1.EndpointSlice, at Place) []lb.Service {
	if !proxied(svc) {
		return nil
	}
	var out []lb.Service
	for _, port := range svc.Spec.Ports {
		r := renderer{svc: svc, port: port, at: at, found: map[bool][]endpoint{}}
		for _, is4 := range []bool{true, false} {
			r.found[is4] = find(eps, port, is4)
		}
		out = append(out, r.fronts()...)
	}
	slices.SortFunc(out, func(a, b lb.Service) int { return a.Front.Compare(b.Front) })
	return slices.CompactFunc(out, func(a, b lb.Service) bool { return a.Front == b.Front })
}

func proxied(svc *corev1.Service) bool {
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return false
	}
	if svc.Spec.ClusterIP == "" || svc.Spec.ClusterIP == corev1.ClusterIPNone {
		return false
	}
	_, other := svc.Labels[labelProxyName]
	_, headless := svc.Labels[labelHeadless]
	return !other && !headless
}

// renderer renders one port of one service.
type renderer struct {
	svc   *corev1.Service
	port  corev1.ServicePort
	at    Place
	found map[bool][]endpoint // by family: true is IPv4
}

func (r renderer) fronts() []lb.Service {
	var out []lb.Service
	spec := r.svc.Spec
	localOnly := spec.InternalTrafficPolicy != nil && *spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
	for _, a := range clusterIPs(r.svc) {
		if s, ok := r.front(a, r.port.Port, localOnly); ok {
			out = append(out, s)
		}
	}
	localOnly = spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	external := func(a netip.Addr, port int32) {
		if s, ok := r.front(a, port, localOnly); ok {
			s.Masquerade = !localOnly
			out = append(out, s)
		}
	}
	if r.port.NodePort != 0 {
		for _, f := range spec.IPFamilies {
			if f == corev1.IPv6Protocol {
				external(netip.IPv6Unspecified(), r.port.NodePort)
			} else {
				external(netip.IPv4Unspecified(), r.port.NodePort)
			}
		}
	}
	for _, a := range externalIPs(r.svc) {
		external(a, r.port.Port)
	}
	return out
}

// front renders the service at one address.
func (r renderer) front(a netip.Addr, port int32, localOnly bool) (lb.Service, bool) {
	proto, ok := protocol(r.port.Protocol)
	if !ok || port <= 0 || port > 65535 || slices.Contains(r.at.Own, a) {
		return lb.Service{}, false
	}
	s := lb.Service{
		Front: lb.Front{Addr: a, Protocol: proto, Port: uint16(port)},
		Name:  name(r.svc, r.port),
	}
	if r.svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		s.Affinity = affinity(r.svc)
	}
	all := r.found[a.Is4()]
	use := choose(all, r.at, localOnly)
	s.Drop = localOnly && len(use) == 0 && len(choose(all, r.at, false)) > 0
	for _, e := range use {
		s.Backends = append(s.Backends, e.at)
	}
	slices.SortFunc(s.Backends, netip.AddrPort.Compare)
	s.Backends = slices.Compact(s.Backends)
	return s, true
}

func name(svc *corev1.Service, port corev1.ServicePort) string {
	n := svc.Namespace + "/" + svc.Name
	if port.Name != "" {
		n += ":" + port.Name
	}
	return n
}

func affinity(svc *corev1.Service) time.Duration {
	c := svc.Spec.SessionAffinityConfig
	if c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil || *c.ClientIP.TimeoutSeconds < 1 {
		return time.Duration(corev1.DefaultClientIPServiceAffinitySeconds) * time.Second
	}
	return time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
}

func protocol(p corev1.Protocol) (lb.Protocol, bool) {
	switch p {
	case corev1.ProtocolTCP, "":
		return lb.TCP, true
	case corev1.ProtocolUDP:
		return lb.UDP, true
	case corev1.ProtocolSCTP:
		return lb.SCTP, true
	}
	return 0, false
}

// clusterIPs are the service's cluster addresses, also those of an object
// that has only the older, single field.
func clusterIPs(svc *corev1.Service) []netip.Addr {
	all := svc.Spec.ClusterIPs
	if len(all) == 0 {
		all = []string{svc.Spec.ClusterIP}
	}
	return addrs(all)
}

// externalIPs are those named in the spec and those a load balancer routes
// here unchanged. With source ranges, which are not enforced, the load
// balancer's are left out: open to all is what the user did not want.
func externalIPs(svc *corev1.Service) []netip.Addr {
	out := addrs(svc.Spec.ExternalIPs)
	if len(svc.Spec.LoadBalancerSourceRanges) > 0 {
		return out
	}
	for _, in := range svc.Status.LoadBalancer.Ingress {
		if in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP {
			out = append(out, addrs([]string{in.IP})...)
		}
	}
	return out
}

func addrs(in []string) []netip.Addr {
	var out []netip.Addr
	for _, s := range in {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}
