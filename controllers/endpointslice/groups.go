package endpointslice

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/net"

	"skein.dev/skein/controllers/pods"
)

// Group is the endpoints that share an address family and ports, which is
// what a slice can hold.
type Group struct {
	Type      discoveryv1.AddressType
	Ports     []discoveryv1.EndpointPort
	Endpoints []discoveryv1.Endpoint // sorted by address
}

func (g Group) key() string { return groupKey(g.Type, g.Ports) }

func groupKey(t discoveryv1.AddressType, ports []discoveryv1.EndpointPort) string {
	parts := make([]string, 0, len(ports))
	for _, p := range ports {
		parts = append(parts, fmt.Sprintf("%s/%s/%d/%s", deref(p.Name), deref(p.Protocol), deref(p.Port), deref(p.AppProtocol)))
	}
	slices.Sort(parts)
	return string(t) + " " + strings.Join(parts, ",")
}

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// Groups computes the endpoints of svc. Every address family of the service
// has at least one group, which may be empty. zone tells a node's zone.
func Groups(svc *corev1.Service, selected []*corev1.Pod, zone func(node string) string) []Group {
	var out []Group
	for _, family := range Families(svc) {
		t := discoveryv1.AddressTypeIPv4
		if family == corev1.IPv6Protocol {
			t = discoveryv1.AddressTypeIPv6
		}
		byKey := map[string]int{}
		first := len(out)
		for _, pod := range selected {
			ip := pods.IP(pod, family)
			if ip == "" || pods.Finished(pod) {
				continue
			}
			ports := Ports(svc, pod)
			k := groupKey(t, ports)
			i, ok := byKey[k]
			if !ok {
				i = len(out)
				byKey[k] = i
				out = append(out, Group{Type: t, Ports: ports})
			}
			out[i].Endpoints = append(out[i].Endpoints, endpoint(svc, pod, ip, zone(pod.Spec.NodeName)))
		}
		if len(out) == first {
			out = append(out, Group{Type: t})
		}
	}
	for i := range out {
		slices.SortFunc(out[i].Endpoints, byAddress)
		hint(svc, out[i].Endpoints)
	}
	slices.SortFunc(out, func(a, b Group) int { return cmp.Compare(a.key(), b.key()) })
	return out
}

func byAddress(a, b discoveryv1.Endpoint) int { return cmp.Compare(a.Addresses[0], b.Addresses[0]) }

// Families are the address families svc has endpoints in.
func Families(svc *corev1.Service) []corev1.IPFamily {
	if len(svc.Spec.IPFamilies) > 0 {
		return svc.Spec.IPFamilies
	}
	if svc.Spec.ClusterIP == "" || svc.Spec.ClusterIP == corev1.ClusterIPNone {
		return []corev1.IPFamily{corev1.IPv4Protocol}
	}
	if net.IsIPv6String(svc.Spec.ClusterIP) {
		return []corev1.IPFamily{corev1.IPv6Protocol}
	}
	return []corev1.IPFamily{corev1.IPv4Protocol}
}

// Ports resolves the service's ports on a pod; ports the pod does not have
// are left out.
func Ports(svc *corev1.Service, pod *corev1.Pod) []discoveryv1.EndpointPort {
	var out []discoveryv1.EndpointPort
	for i := range svc.Spec.Ports {
		sp := &svc.Spec.Ports[i]
		if n, ok := pods.Port(pod, sp); ok {
			out = append(out, discoveryv1.EndpointPort{
				Name: new(sp.Name), Protocol: new(sp.Protocol), Port: new(n), AppProtocol: sp.AppProtocol,
			})
		}
	}
	return out
}

func endpoint(svc *corev1.Service, pod *corev1.Pod, ip, zone string) discoveryv1.Endpoint {
	serving, terminating := pods.Ready(pod), pod.DeletionTimestamp != nil
	e := discoveryv1.Endpoint{
		Addresses: []string{ip},
		Conditions: discoveryv1.EndpointConditions{
			Ready:       new(svc.Spec.PublishNotReadyAddresses || (serving && !terminating)),
			Serving:     new(serving),
			Terminating: new(terminating),
		},
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
	}
	if pod.Spec.NodeName != "" {
		e.NodeName = new(pod.Spec.NodeName)
	}
	if zone != "" {
		e.Zone = new(zone)
	}
	if h := pods.Hostname(pod, svc); h != "" {
		e.Hostname = new(h)
	}
	return e
}

// hint fills the topology hints that the service's traffic distribution asks
// for: https://kubernetes.io/docs/concepts/services-networking/service/#traffic-distribution.
func hint(svc *corev1.Service, all []discoveryv1.Endpoint) {
	want := deref(svc.Spec.TrafficDistribution)
	node := want == corev1.ServiceTrafficDistributionPreferSameNode
	zone := node || want == corev1.ServiceTrafficDistributionPreferClose || want == corev1.ServiceTrafficDistributionPreferSameZone
	for i := range all {
		e := &all[i]
		if !deref(e.Conditions.Ready) {
			continue
		}
		h := discoveryv1.EndpointHints{}
		if zone && e.Zone != nil {
			h.ForZones = []discoveryv1.ForZone{{Name: *e.Zone}}
		}
		if node && e.NodeName != nil {
			h.ForNodes = []discoveryv1.ForNode{{Name: *e.NodeName}}
		}
		if h.ForZones != nil || h.ForNodes != nil {
			e.Hints = &h
		}
	}
}

// Meta is what all slices of svc carry.
func Meta(svc *corev1.Service) metav1.ObjectMeta {
	l := map[string]string{}
	for k, v := range svc.Labels {
		if k != discoveryv1.LabelServiceName && k != discoveryv1.LabelManagedBy && k != corev1.IsHeadlessService {
			l[k] = v
		}
	}
	l[discoveryv1.LabelServiceName] = svc.Name
	l[discoveryv1.LabelManagedBy] = ManagedBy
	if svc.Spec.ClusterIP == corev1.ClusterIPNone {
		l[corev1.IsHeadlessService] = ""
	}
	return metav1.ObjectMeta{
		Namespace: svc.Namespace, Labels: l, GenerateName: svc.Name + "-",
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(svc, corev1.SchemeGroupVersion.WithKind("Service"))},
	}
}
