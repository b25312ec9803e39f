package kubelet

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"skein.dev/skein/kubelet/lifecycle"
	"skein.dev/skein/network/lb"
)

// hostPortsOf are the fronts by which the machine leads its own ports to a pod
// that has these addresses.
func hostPortsOf(pod *corev1.Pod, ips []string) []lb.Service {
	if pod.Spec.HostNetwork {
		return nil // its ports are the machine's already
	}
	var out []lb.Service
	for _, p := range hostPorts(pod) {
		proto, ok := map[corev1.Protocol]lb.Protocol{"": lb.TCP, corev1.ProtocolTCP: lb.TCP, corev1.ProtocolUDP: lb.UDP, corev1.ProtocolSCTP: lb.SCTP}[p.Protocol]
		if !ok {
			continue
		}
		for _, ip := range ips {
			to, err := netip.ParseAddr(ip)
			if err != nil {
				continue
			}
			at, ok := hostAddress(p.HostIP, to.Is4())
			if !ok {
				continue
			}
			s := lb.Service{
				Front:    lb.Front{Addr: at, Protocol: proto, Port: uint16(p.HostPort)},
				Name:     fmt.Sprintf("%s/%s:%d", pod.Namespace, pod.Name, p.HostPort),
				Backends: []netip.AddrPort{netip.AddrPortFrom(to, uint16(p.ContainerPort))},
			}
			if !slices.ContainsFunc(out, func(o lb.Service) bool { return o.Front == s.Front }) {
				out = append(out, s)
			}
		}
	}
	return out
}

// hostAddress is where a host port is open for a family: on the address that
// it names, or without one on all of the machine's.
func hostAddress(hostIP string, is4 bool) (netip.Addr, bool) {
	all := netip.IPv6Unspecified()
	if is4 {
		all = netip.IPv4Unspecified()
	}
	if hostIP == "" {
		return all, true
	}
	a, err := netip.ParseAddr(hostIP)
	if err != nil || a.Unmap().Is4() != is4 {
		return all, false
	}
	return a.Unmap(), true
}

// tellPorts notes which host ports lead to the pod now, and passes on a change.
func (w *worker) tellPorts(pod *corev1.Pod, sandboxes []lifecycle.Sandbox, gone bool) {
	if w.k.cfg.HostPorts == nil {
		return
	}
	var ports []lb.Service
	if len(sandboxes) > 0 && sandboxes[0].Ready && !gone {
		ports = hostPortsOf(pod, sandboxes[0].IPs)
	}
	w.mu.Lock()
	changed := !w.portsTold || !slices.EqualFunc(w.ports, ports, lb.Service.Equal)
	w.ports, w.portsTold = ports, true
	w.mu.Unlock()
	if changed {
		w.k.publishPorts()
	}
}

// publishPorts tells the host ports of all pods, once those of each pod that
// has some are known: before that, what the kernel has from an earlier run is
// better than half a list.
func (k *Kubelet) publishPorts() {
	if k.cfg.HostPorts == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []lb.Service
	for _, w := range k.workers {
		ports, told := w.openPorts()
		if !told {
			return
		}
		all = append(all, ports...)
	}
	slices.SortFunc(all, func(a, b lb.Service) int { return a.Front.Compare(b.Front) })
	k.cfg.HostPorts.Set(slices.CompactFunc(all, func(a, b lb.Service) bool { return a.Front == b.Front }))
}

// openPorts are the host ports of the pod; not told means that they are not
// known yet.
func (w *worker) openPorts() (ports []lb.Service, told bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ports, w.portsTold || len(hostPorts(w.pod)) == 0
}
