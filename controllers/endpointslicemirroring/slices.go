package endpointslicemirroring

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	managedBy = "endpointslicemirroring-controller.k8s.io"
	// most is how many addresses of a subset are mirrored.
	most = 1000
	// leaderAnnotation marks Endpoints that are an election's lock.
	leaderAnnotation = "control-plane.alpha.kubernetes.io/leader"
)

// Endpoints are deprecated, and what people still write.
type Endpoints = corev1.Endpoints //nolint:staticcheck // they are what is mirrored

// wanted reports whether the Endpoints are to be mirrored.
func wanted(ep *Endpoints) bool {
	_, lock := ep.Annotations[leaderAnnotation]
	return !lock && ep.Labels[discoveryv1.LabelSkipMirror] != "true"
}

// Slices are those that mirror ep; nil mirrors nothing.
func Slices(ep *Endpoints) []*discoveryv1.EndpointSlice {
	if ep == nil {
		return nil
	}
	var out []*discoveryv1.EndpointSlice
	at := map[string]*discoveryv1.EndpointSlice{}
	for _, sub := range ep.Subsets {
		left := most
		for i, list := range [][]corev1.EndpointAddress{sub.Addresses, sub.NotReadyAddresses} {
			for j := range list {
				ip, err := netip.ParseAddr(list[j].IP)
				if err != nil || left == 0 {
					continue
				}
				left--
				family := discoveryv1.AddressTypeIPv4
				if ip.Is6() {
					family = discoveryv1.AddressTypeIPv6
				}
				ports := portsOf(sub.Ports)
				k := identity(family, ports)
				if at[k] == nil {
					at[k] = slice(ep, family, ports)
					out = append(out, at[k])
				}
				at[k].Endpoints = append(at[k].Endpoints, endpoint(&list[j], i == 0))
			}
		}
	}
	return out
}

func slice(ep *Endpoints, family discoveryv1.AddressType, ports []discoveryv1.EndpointPort) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: ep.Name + "-", Namespace: ep.Namespace, Labels: map[string]string{}, Annotations: map[string]string{},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(ep, corev1.SchemeGroupVersion.WithKind("Endpoints"))},
		},
		AddressType: family, Ports: ports,
	}
	for k, v := range ep.Labels {
		if k != corev1.IsHeadlessService {
			s.Labels[k] = v
		}
	}
	s.Labels[discoveryv1.LabelServiceName], s.Labels[discoveryv1.LabelManagedBy] = ep.Name, managedBy
	for k, v := range ep.Annotations {
		if k != corev1.LastAppliedConfigAnnotation && k != corev1.EndpointsLastChangeTriggerTime {
			s.Annotations[k] = v
		}
	}
	return s
}

func portsOf(in []corev1.EndpointPort) []discoveryv1.EndpointPort {
	out := make([]discoveryv1.EndpointPort, 0, len(in))
	for _, p := range in {
		out = append(out, discoveryv1.EndpointPort{Name: &p.Name, Port: &p.Port, Protocol: &p.Protocol, AppProtocol: p.AppProtocol})
	}
	return out
}

func endpoint(a *corev1.EndpointAddress, ready bool) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{
		Addresses: []string{a.IP}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}, TargetRef: a.TargetRef, NodeName: a.NodeName,
	}
	if a.Hostname != "" {
		e.Hostname = &a.Hostname
	}
	return e
}

// identity tells slices apart that cannot be one.
func identity(family discoveryv1.AddressType, ports []discoveryv1.EndpointPort) string {
	parts := make([]string, 0, len(ports))
	text := func(v any) string { return fmt.Sprintf("%q", fmt.Sprint(v)) }
	for _, p := range ports {
		var name, app string
		var port int32
		protocol := corev1.ProtocolTCP
		if p.Name != nil {
			name = *p.Name
		}
		if p.Port != nil {
			port = *p.Port
		}
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		if p.AppProtocol != nil {
			app = *p.AppProtocol
		}
		parts = append(parts, text(name)+text(port)+text(protocol)+text(app))
	}
	slices.Sort(parts)
	return string(family) + strings.Join(parts, ",")
}

// Changes leads from the slices that exist to those that should.
type Changes struct {
	Create, Update, Delete []*discoveryv1.EndpointSlice
}

// Diff keeps slices of the same family and ports; its inputs stay untouched.
func Diff(have, want []*discoveryv1.EndpointSlice) Changes {
	var ch Changes
	used := map[*discoveryv1.EndpointSlice]bool{}
	for _, w := range want {
		k := identity(w.AddressType, w.Ports)
		i := slices.IndexFunc(have, func(h *discoveryv1.EndpointSlice) bool {
			return !used[h] && h.DeletionTimestamp == nil && identity(h.AddressType, h.Ports) == k
		})
		if i < 0 {
			ch.Create = append(ch.Create, w)
			continue
		}
		h := have[i]
		used[h] = true
		if equality.Semantic.DeepEqual(h.Endpoints, w.Endpoints) && equality.Semantic.DeepEqual(h.Labels, w.Labels) &&
			equality.Semantic.DeepEqual(h.OwnerReferences, w.OwnerReferences) && sameNotes(h.Annotations, w.Annotations) {
			continue
		}
		up := h.DeepCopy()
		up.Endpoints, up.Labels, up.Annotations, up.OwnerReferences = w.Endpoints, w.Labels, w.Annotations, w.OwnerReferences
		ch.Update = append(ch.Update, up)
	}
	for _, h := range have {
		if !used[h] && h.DeletionTimestamp == nil {
			ch.Delete = append(ch.Delete, h)
		}
	}
	return ch
}

func sameNotes(a, b map[string]string) bool {
	return (len(a) == 0 && len(b) == 0) || equality.Semantic.DeepEqual(a, b)
}
