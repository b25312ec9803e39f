package endpoints

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"skein.dev/skein/controllers/pods"
)

// maxAddresses is how many addresses an Endpoints object holds at most.
const maxAddresses = 1000

// Subsets groups the pods of svc by the ports they serve, in the service's
// first address family only, which is all this kind can say. cut reports that
// there were more than it may hold; ready addresses stay first.
func Subsets(svc *corev1.Service, selected []*corev1.Pod) (out []corev1.EndpointSubset, cut bool) {
	family := corev1.IPv4Protocol
	if len(svc.Spec.IPFamilies) > 0 {
		family = svc.Spec.IPFamilies[0]
	}
	selected = slices.Clone(selected)
	slices.SortFunc(selected, func(a, b *corev1.Pod) int {
		return cmp.Compare(pods.IP(a, family), pods.IP(b, family))
	})
	byPorts := map[string]*corev1.EndpointSubset{}
	ready, unready := 0, 0
	for _, pass := range []bool{true, false} { // ready ones take the room first
		for _, pod := range selected {
			ip := pods.IP(pod, family)
			counts := svc.Spec.PublishNotReadyAddresses || pod.DeletionTimestamp == nil
			isReady := svc.Spec.PublishNotReadyAddresses || pods.Ready(pod)
			if ip == "" || pods.Finished(pod) || !counts || isReady != pass {
				continue
			}
			if ready+unready == maxAddresses {
				cut = true
				continue
			}
			ports := portsOf(svc, pod)
			if len(ports) == 0 && len(svc.Spec.Ports) > 0 {
				continue
			}
			s := byPorts[portsKey(ports)]
			if s == nil {
				s = &corev1.EndpointSubset{Ports: ports}
				byPorts[portsKey(ports)] = s
			}
			a := address(svc, pod, ip)
			if isReady {
				s.Addresses = append(s.Addresses, a)
				ready++
			} else {
				s.NotReadyAddresses = append(s.NotReadyAddresses, a)
				unready++
			}
		}
	}
	keys := make([]string, 0, len(byPorts))
	for k := range byPorts {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		out = append(out, *byPorts[k])
	}
	return out, cut
}

func portsOf(svc *corev1.Service, pod *corev1.Pod) []corev1.EndpointPort {
	var out []corev1.EndpointPort
	for i := range svc.Spec.Ports {
		sp := &svc.Spec.Ports[i]
		if n, ok := pods.Port(pod, sp); ok {
			out = append(out, corev1.EndpointPort{Name: sp.Name, Port: n, Protocol: sp.Protocol, AppProtocol: sp.AppProtocol})
		}
	}
	slices.SortFunc(out, func(a, b corev1.EndpointPort) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	return out
}

func portsKey(ports []corev1.EndpointPort) string {
	var b strings.Builder
	for _, p := range ports {
		app := ""
		if p.AppProtocol != nil {
			app = *p.AppProtocol
		}
		fmt.Fprintf(&b, "%s/%d/%s/%s,", p.Name, p.Port, p.Protocol, app)
	}
	return b.String()
}

func address(svc *corev1.Service, pod *corev1.Pod, ip string) corev1.EndpointAddress {
	a := corev1.EndpointAddress{
		IP: ip, Hostname: pods.Hostname(pod, svc),
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
	}
	if pod.Spec.NodeName != "" {
		node := pod.Spec.NodeName
		a.NodeName = &node
	}
	return a
}
