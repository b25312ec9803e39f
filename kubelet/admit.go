package kubelet

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"skein.dev/skein/kubelet/lifecycle"
)

// admit says why this node cannot take the pod, nil if it can, and once it
// can the pod counts for those who come later. The scheduler has looked at
// all this before, but pods may be bound by others, and two schedulers may
// have meant the same room.
func (k *Kubelet) admit(ctx context.Context, w *worker) *lifecycle.Rejection {
	k.admitting.Lock() // one after the other: each sees the room that is left
	defer k.admitting.Unlock()
	pod, admitted := w.standing()
	if admitted {
		return nil
	}
	here := k.admitted(w)
	for _, refuse := range []func() (reason, message string){
		func() (string, string) { return k.room.refuse(pod) },
		func() (string, string) { return refuseOS(pod) },
		func() (string, string) { return refuseSysctls(pod) },
		func() (string, string) { return k.refuseNode(ctx, pod) },
		func() (string, string) { return refusePorts(pod, here) },
		func() (string, string) { return refuseRoom(pod, here, k.node.allocatable()) },
	} {
		if reason, message := refuse(); reason != "" {
			return &lifecycle.Rejection{Reason: reason, Message: "Pod was rejected: " + message}
		}
	}
	w.admit()
	return nil
}

// admitted are the pods that take room, but for that of w.
func (k *Kubelet) admitted(w *worker) []*corev1.Pod {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []*corev1.Pod
	for _, other := range k.workers {
		pod, ok := other.standing()
		if ok && other != w && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			out = append(out, pod)
		}
	}
	return out
}

func refuseOS(pod *corev1.Pod) (reason, message string) {
	if os := pod.Spec.OS; os != nil && os.Name != corev1.Linux {
		return "PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"
	}
	return "", ""
}

// safeSysctls are those that a pod may set without harm to others, by the
// documentation of sysctls; each lives in a namespace of the pod's own.
func safeSysctls() []string {
	return []string{
		"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
		"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time",
		"net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem",
		"net.ipv4.tcp_wmem",
	}
}

func refuseSysctls(pod *corev1.Pod) (reason, message string) {
	const forbidden = "SysctlForbidden"
	sc := pod.Spec.SecurityContext
	if sc == nil {
		return "", ""
	}
	for _, s := range sc.Sysctls {
		name := strings.ReplaceAll(s.Name, "/", ".")
		switch {
		case !slices.Contains(safeSysctls(), name):
			return forbidden, fmt.Sprintf("forbidden sysctl: %q not allowlisted", s.Name)
		case strings.HasPrefix(name, "net.") && pod.Spec.HostNetwork:
			return forbidden, fmt.Sprintf("forbidden sysctl: %q not allowed with host net enabled", s.Name)
		case strings.HasPrefix(name, "kernel.shm") && pod.Spec.HostIPC:
			return forbidden, fmt.Sprintf("forbidden sysctl: %q not allowed with host ipc enabled", s.Name)
		}
	}
	return "", ""
}

// refuseNode compares what the pod wants of a node with this one, once that
// is known.
func (k *Kubelet) refuseNode(ctx context.Context, pod *corev1.Pod) (reason, message string) {
	node, err := k.node.lister.Get(k.cfg.NodeName)
	if err != nil {
		return "", ""
	}
	if ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node); err != nil || !ok {
		k.log.DebugContext(ctx, "pod does not want this node", "pod", pod.Namespace+"/"+pod.Name, "err", err)
		return "NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
	}
	return "", ""
}

func refusePorts(pod *corev1.Pod, here []*corev1.Pod) (reason, message string) {
	for _, other := range here {
		for _, a := range hostPorts(pod) {
			if slices.ContainsFunc(hostPorts(other), func(b corev1.ContainerPort) bool { return clash(a, b) }) {
				return "NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
			}
		}
	}
	return "", ""
}

func hostPorts(pod *corev1.Pod) []corev1.ContainerPort {
	var out []corev1.ContainerPort
	add := func(c *corev1.Container) {
		for _, p := range c.Ports {
			if p.HostPort > 0 {
				out = append(out, p)
			}
		}
	}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; lifecycle.Sidecar(c) {
			add(c)
		}
	}
	for i := range pod.Spec.Containers {
		add(&pod.Spec.Containers[i])
	}
	return out
}

func clash(a, b corev1.ContainerPort) bool {
	everywhere := func(ip string) bool { return ip == "" || ip == "0.0.0.0" || ip == "::" }
	tcp := func(p corev1.Protocol) corev1.Protocol {
		if p == "" {
			return corev1.ProtocolTCP
		}
		return p
	}
	return a.HostPort == b.HostPort && tcp(a.Protocol) == tcp(b.Protocol) &&
		(a.HostIP == b.HostIP || everywhere(a.HostIP) || everywhere(b.HostIP))
}

// refuseRoom compares the pod's requests with what is left of the node. A
// resource that the node has never heard of is its provider's concern.
func refuseRoom(pod *corev1.Pod, here []*corev1.Pod, room corev1.ResourceList) (reason, message string) {
	if int64(len(here)) >= room.Pods().Value() {
		return outOf(corev1.ResourcePods, 1, int64(len(here)), room.Pods().Value())
	}
	want := resource.PodRequests(pod, resource.PodResourcesOptions{})
	used := corev1.ResourceList{}
	for _, p := range here {
		for name, q := range resource.PodRequests(p, resource.PodResourcesOptions{}) {
			sum := used[name]
			sum.Add(q)
			used[name] = sum
		}
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		w, u, has := want[name], used[name], room[name]
		total := w.DeepCopy()
		if total.Add(u); w.IsZero() || total.Cmp(has) <= 0 {
			continue
		}
		if name == corev1.ResourceCPU {
			return outOf(name, w.MilliValue(), u.MilliValue(), has.MilliValue())
		}
		return outOf(name, w.Value(), u.Value(), has.Value())
	}
	return "", ""
}

func outOf(name corev1.ResourceName, want, used, has int64) (reason, message string) {
	return "OutOf" + string(name), fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, want, used, has)
}
