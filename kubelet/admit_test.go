package kubelet_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestANodeRefusesWhatItCannotRun(t *testing.T) {
	n := newNode(t)
	port := func(host int32, ip string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: host, HostIP: ip}}
		}
	}
	n.create(pod("holder", port(8080, "")))
	n.eventually("holder", "running", running)
	for name, row := range map[string]struct {
		edit   func(*corev1.Pod)
		reason string
		says   string
	}{
		"cpu": {func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("5000")}
		}, "OutOfcpu", "Pod was rejected: Node didn't have enough resource: cpu, requested: 5000000, used: 0, capacity: "},
		"memory": {func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("5000Ti")}
		}, "OutOfmemory", "enough resource: memory"},
		"port":     {port(8080, "192.0.2.1"), "NodePorts", "didn't have free ports"},
		"selector": {func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "fast"} }, "NodeAffinity", "didn't match Pod's node affinity/selector"},
		"sysctl": {func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "kernel.msgmax", Value: "1"}}}
		}, "SysctlForbidden", `forbidden sysctl: "kernel.msgmax" not allowlisted`},
		"hostnet-sysctl": {func(p *corev1.Pod) {
			p.Spec.HostNetwork = true
			p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net.ipv4.tcp_syncookies", Value: "1"}}}
		}, "SysctlForbidden", "host net enabled"},
		"os": {func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} }, "PodOSNotSupported", "OS field"},
	} {
		n.create(pod(name, row.edit))
		p := n.eventually(name, "refused", func(p *corev1.Pod) bool { return p != nil && p.Status.Phase == corev1.PodFailed })
		if p.Status.Reason != row.reason || !strings.Contains(p.Status.Message, row.says) {
			t.Errorf("%s: %s, %q; want %s, %q", name, p.Status.Reason, p.Status.Message, row.reason, row.says)
		}
	}
	if _, c := n.runtime.Left(); c != 1 {
		t.Errorf("%d containers, want only the holder's", c)
	}
	// What goes makes room.
	n.remove("holder", 1)
	n.eventually("holder", "gone", func(p *corev1.Pod) bool { return p == nil })
	n.create(pod("next", port(8080, "")))
	n.eventually("next", "running", running)
}
