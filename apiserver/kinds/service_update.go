package kinds

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// updateService clears what the old type needed, the new one does not, and
// the user left as the system had filled it in. What the user changed as well
// stays, for validation to refuse.
func updateService(s, old *corev1.Service) {
	s.Status = old.Status
	n, o := &s.Spec, &old.Spec
	if o.Type != corev1.ServiceTypeExternalName && n.Type == corev1.ServiceTypeExternalName {
		if n.ClusterIP == o.ClusterIP && slices.Equal(n.ClusterIPs, o.ClusterIPs) {
			n.ClusterIP, n.ClusterIPs = "", nil
		}
		forget(&n.IPFamilies, o.IPFamilies)
		forget(&n.IPFamilyPolicy, o.IPFamilyPolicy)
	}
	if hasNodePorts(o) && !hasNodePorts(n) && nodePortsWithin(n.Ports, o.Ports) {
		for i := range n.Ports {
			n.Ports[i].NodePort = 0
		}
	}
	if needsHealthPort(o) && !needsHealthPort(n) {
		forget(&n.HealthCheckNodePort, o.HealthCheckNodePort)
	}
	if n.Type != corev1.ServiceTypeLoadBalancer {
		if o.Type == corev1.ServiceTypeLoadBalancer {
			forget(&n.AllocateLoadBalancerNodePorts, o.AllocateLoadBalancerNodePorts)
			forget(&n.LoadBalancerClass, o.LoadBalancerClass)
		}
		s.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	}
	if reachableFromOutside(o) && !reachableFromOutside(n) {
		forget(&n.ExternalTrafficPolicy, o.ExternalTrafficPolicy)
	}
}

// forget clears *now if it is what it was before.
func forget[T any](now *T, before T) {
	if equality.Semantic.DeepEqual(*now, before) {
		var zero T
		*now = zero
	}
}

func hasNodePorts(s *corev1.ServiceSpec) bool {
	return s.Type == corev1.ServiceTypeNodePort || s.Type == corev1.ServiceTypeLoadBalancer
}

func reachableFromOutside(s *corev1.ServiceSpec) bool {
	return hasNodePorts(s) || s.Type == corev1.ServiceTypeClusterIP && len(s.ExternalIPs) > 0
}

func needsHealthPort(s *corev1.ServiceSpec) bool {
	return s.Type == corev1.ServiceTypeLoadBalancer && s.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// nodePortsWithin tells whether every node port of ports is one of before's.
func nodePortsWithin(ports, before []corev1.ServicePort) bool {
	for _, p := range ports {
		known := func(b corev1.ServicePort) bool { return b.NodePort == p.NodePort }
		if p.NodePort != 0 && !slices.ContainsFunc(before, known) {
			return false
		}
	}
	return true
}

func warnService(s, _ *corev1.Service) []string {
	var w []string
	spec, path := &s.Spec, field.NewPath("spec")
	if _, ok := s.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]; ok {
		w = append(w, fmt.Sprintf("annotation %s is deprecated, please use %s instead",
			corev1.DeprecatedAnnotationTopologyAwareHints, corev1.AnnotationTopologyMode))
	}
	headless := spec.Type == corev1.ServiceTypeClusterIP && spec.ClusterIP == corev1.ClusterIPNone
	if spec.ClusterIP != "" && spec.ClusterIP != corev1.ClusterIPNone {
		for i, ip := range spec.ClusterIPs {
			w = append(w, validation.GetWarningsForIP(path.Child("clusterIPs").Index(i), ip)...)
		}
	}
	ignored := func(when bool, text string) {
		if headless && when {
			w = append(w, text+" is ignored for headless services")
		}
	}
	ignored(spec.LoadBalancerIP != "", "spec.loadBalancerIP")
	ignored(len(spec.ExternalIPs) > 0, "spec.externalIPs")
	ignored(spec.SessionAffinity != corev1.ServiceAffinityNone, "spec.SessionAffinity")
	for i, ip := range spec.ExternalIPs {
		w = append(w, validation.GetWarningsForIP(path.Child("externalIPs").Index(i), ip)...)
	}
	named := spec.Type == corev1.ServiceTypeExternalName
	if len(spec.ExternalIPs) > 0 && !headless && !named {
		w = append(w, "spec.externalIPs is deprecated and may no longer be implemented in some clusters")
	}
	if spec.LoadBalancerIP != "" {
		w = append(w, validation.GetWarningsForIP(path.Child("loadBalancerIP"), spec.LoadBalancerIP)...)
	}
	for i, cidr := range spec.LoadBalancerSourceRanges {
		w = append(w, validation.GetWarningsForCIDR(path.Child("loadBalancerSourceRanges").Index(i), cidr)...)
	}
	if named && len(spec.ExternalIPs) > 0 {
		w = append(w, fmt.Sprintf("spec.externalIPs is ignored when spec.type is %q", spec.Type))
	}
	if !named && spec.ExternalName != "" {
		w = append(w, fmt.Sprintf("spec.externalName is ignored when spec.type is not %q", corev1.ServiceTypeExternalName))
	}
	if d := spec.TrafficDistribution; d != nil && *d == corev1.ServiceTrafficDistributionPreferClose {
		w = append(w, fmt.Sprintf("spec.trafficDistribution: %q is deprecated; use %q", *d, corev1.ServiceTrafficDistributionPreferSameZone))
	}
	return w
}
