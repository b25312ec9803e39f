package alloc

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Fill gives s what it needs and its user has not named: IP families, cluster
// addresses, node ports. What the user has named is checked against the
// ranges. It returns the problems as validation would.
func (r Ranges) Fill(s *corev1.Service, taken func(claim string) bool) field.ErrorList {
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	if s.Spec.ClusterIP != "" && len(s.Spec.ClusterIPs) == 0 {
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	}
	errs := r.families(s)
	if len(errs) > 0 {
		return errs
	}
	errs = append(errs, r.addresses(s, taken)...)
	return append(errs, r.ports(s, taken)...)
}

func (r Ranges) of(f corev1.IPFamily) (netip.Prefix, bool) {
	i := slices.IndexFunc(r.CIDRs, func(p netip.Prefix) bool { return Family(p) == f })
	if i < 0 {
		return netip.Prefix{}, false
	}
	return r.CIDRs[i], true
}

// families decides how many addresses of which family a service gets.
func (r Ranges) families(s *corev1.Service) field.ErrorList {
	sp, path := &s.Spec, field.NewPath("spec")
	headless := len(sp.ClusterIPs) > 0 && sp.ClusterIPs[0] == corev1.ClusterIPNone
	if headless && len(sp.Selector) == 0 && sp.IPFamilyPolicy == nil && len(sp.IPFamilies) == 0 {
		// Whoever writes its endpoints knows their families; we do not.
		policy := corev1.IPFamilyPolicyRequireDualStack
		sp.IPFamilyPolicy = &policy
		first := Family(r.CIDRs[0])
		sp.IPFamilies = []corev1.IPFamily{first, other(first)}
		return nil
	}
	if !headless && len(sp.IPFamilies) == 0 {
		for i, ip := range sp.ClusterIPs {
			a, err := netip.ParseAddr(ip)
			if err != nil {
				return field.ErrorList{field.Invalid(path.Child("clusterIPs").Index(i), ip, "must be a valid IP address")}
			}
			sp.IPFamilies = append(sp.IPFamilies, Family(netip.PrefixFrom(a, a.BitLen())))
		}
	}
	if sp.IPFamilyPolicy == nil {
		policy := corev1.IPFamilyPolicySingleStack
		if len(sp.IPFamilies) > 1 {
			policy = corev1.IPFamilyPolicyRequireDualStack
		}
		sp.IPFamilyPolicy = &policy
	}
	for i, f := range sp.IPFamilies {
		if _, ok := r.of(f); !ok && !headless {
			return field.ErrorList{field.Invalid(path.Child("ipFamilies").Index(i), f, "not configured on this cluster")}
		}
	}
	if len(sp.IPFamilies) == 0 {
		sp.IPFamilies = []corev1.IPFamily{Family(r.CIDRs[0])}
	}
	if *sp.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack || len(sp.IPFamilies) > 1 {
		return nil
	}
	second := other(sp.IPFamilies[0])
	if _, ok := r.of(second); ok {
		sp.IPFamilies = append(sp.IPFamilies, second)
	} else if *sp.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack {
		return field.ErrorList{field.Invalid(path.Child("ipFamilyPolicy"), *sp.IPFamilyPolicy, "Cluster is not configured for dual-stack services")}
	}
	return nil
}

func other(f corev1.IPFamily) corev1.IPFamily {
	if f == corev1.IPv4Protocol {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

func (r Ranges) addresses(s *corev1.Service, taken func(string) bool) field.ErrorList {
	sp, path := &s.Spec, field.NewPath("spec", "clusterIPs")
	if len(sp.ClusterIPs) > 0 && sp.ClusterIPs[0] == corev1.ClusterIPNone {
		sp.ClusterIP = corev1.ClusterIPNone
		return nil
	}
	for i, f := range sp.IPFamilies {
		cidr, ok := r.of(f)
		if !ok {
			continue
		}
		if i < len(sp.ClusterIPs) {
			if a, err := netip.ParseAddr(sp.ClusterIPs[i]); err != nil || !cidr.Contains(a) {
				return field.ErrorList{field.Invalid(path, sp.ClusterIPs, fmt.Sprintf(
					"failed to allocate IP %s: the provided IP (%s) is not in the valid range. The range of valid IPs is %s",
					sp.ClusterIPs[i], sp.ClusterIPs[i], cidr))}
			}
			continue
		}
		ip, err := IP(cidr, taken)
		if err != nil {
			return field.ErrorList{field.InternalError(path, fmt.Errorf("failed to allocate a serviceIP: %w", err))}
		}
		sp.ClusterIPs = append(sp.ClusterIPs, ip.String())
	}
	if len(sp.ClusterIPs) > 0 {
		sp.ClusterIP = sp.ClusterIPs[0]
	}
	return nil
}

func (r Ranges) ports(s *corev1.Service, taken func(string) bool) field.ErrorList {
	sp := &s.Spec
	balancer := sp.Type == corev1.ServiceTypeLoadBalancer
	wants := sp.Type == corev1.ServiceTypeNodePort ||
		balancer && (sp.AllocateLoadBalancerNodePorts == nil || *sp.AllocateLoadBalancerNodePorts)
	mine := map[string]bool{}
	used := func(claim string) bool { return mine[claim] || taken(claim) }
	for i := range sp.Ports {
		if n := sp.Ports[i].NodePort; n != 0 {
			if n < r.FirstPort || n > r.LastPort {
				return field.ErrorList{field.Invalid(field.NewPath("spec", "ports").Index(i).Child("nodePort"), n, fmt.Sprintf(
					"provided port is not in the valid range. The range of valid ports is %d-%d", r.FirstPort, r.LastPort))}
			}
			mine[PortClaim(sp.Ports[i].Protocol, n)] = true
		}
	}
	for i := range sp.Ports {
		p := &sp.Ports[i]
		if !wants || p.NodePort != 0 {
			continue
		}
		if n := twin(sp.Ports, *p); n != 0 && !used(PortClaim(p.Protocol, n)) {
			p.NodePort = n
		} else {
			n, err := r.Port(protocolsAt(sp.Ports, p.Port), used)
			if err != nil {
				return field.ErrorList{field.InternalError(field.NewPath("spec", "ports").Index(i).Child("nodePort"), err)}
			}
			p.NodePort = n
		}
		mine[PortClaim(p.Protocol, p.NodePort)] = true
	}
	if balancer && sp.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal && sp.HealthCheckNodePort == 0 {
		n, err := r.Port([]corev1.Protocol{corev1.ProtocolTCP}, used)
		if err != nil {
			return field.ErrorList{field.InternalError(field.NewPath("spec", "healthCheckNodePort"), err)}
		}
		sp.HealthCheckNodePort = n
	}
	return nil
}

// twin is the node port of the same port under another protocol: the two
// share a number, as DNS over UDP and TCP wants.
func twin(ports []corev1.ServicePort, p corev1.ServicePort) int32 {
	for _, o := range ports {
		if o.Port == p.Port && o.Protocol != p.Protocol && o.NodePort != 0 {
			return o.NodePort
		}
	}
	return 0
}

func protocolsAt(ports []corev1.ServicePort, port int32) (out []corev1.Protocol) {
	for _, p := range ports {
		if p.Port == port {
			out = append(out, p.Protocol)
		}
	}
	return out
}

// Keep carries over to s what old was given and an update leaves out.
func Keep(s, old *corev1.Service) {
	n, o := &s.Spec, &old.Spec
	if n.Type == corev1.ServiceTypeExternalName || o.Type == corev1.ServiceTypeExternalName {
		return
	}
	switch {
	case n.ClusterIP == "" && len(n.ClusterIPs) == 0:
		n.ClusterIP, n.ClusterIPs = o.ClusterIP, slices.Clone(o.ClusterIPs)
	case n.ClusterIP != o.ClusterIP && slices.Equal(n.ClusterIPs, o.ClusterIPs):
		n.ClusterIPs = nil // only the single field was changed
		if n.ClusterIP != "" {
			n.ClusterIPs = []string{n.ClusterIP}
		}
	}
	if n.IPFamilyPolicy == nil {
		n.IPFamilyPolicy = o.IPFamilyPolicy
	}
	if len(n.IPFamilies) == 0 {
		n.IPFamilies = slices.Clone(o.IPFamilies)
	}
	outside := func(t corev1.ServiceType) bool {
		return t == corev1.ServiceTypeNodePort || t == corev1.ServiceTypeLoadBalancer
	}
	if !outside(n.Type) || !outside(o.Type) {
		return
	}
	for i := range n.Ports {
		p := &n.Ports[i]
		if p.NodePort != 0 {
			continue
		}
		for _, q := range o.Ports {
			free := !slices.ContainsFunc(n.Ports, func(x corev1.ServicePort) bool {
				return x.NodePort == q.NodePort && x.Protocol == q.Protocol
			})
			if q.Port == p.Port && q.Protocol == p.Protocol && free {
				p.NodePort = q.NodePort
			}
		}
	}
	if n.HealthCheckNodePort == 0 && n.Type == corev1.ServiceTypeLoadBalancer {
		n.HealthCheckNodePort = o.HealthCheckNodePort
	}
}
