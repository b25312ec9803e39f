package kubelet_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestHostPortsLeadToThePodWhileItIsThere(t *testing.T) {
	n := newNode(t)
	told := func(want ...string) {
		t.Helper()
		n.eventually("a", "ports "+strings.Join(want, ", "), func(*corev1.Pod) bool {
			got, known := n.ports.Services()
			if !known || len(got) != len(want) {
				return false
			}
			for i := range got {
				if got[i].Front.String()+" "+got[i].Backends[0].String() != want[i] {
					return false
				}
			}
			return true
		})
	}
	told()
	n.create(pod("a", func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{
			{ContainerPort: 80, HostPort: 8080, HostIP: "127.0.0.1", Protocol: corev1.ProtocolTCP},
			{ContainerPort: 53, HostPort: 5353, Protocol: corev1.ProtocolUDP},
			{ContainerPort: 81},
		}
	}))
	p := n.eventually("a", "running", running)
	told("UDP 0.0.0.0:5353 "+p.Status.PodIP+":53", "TCP 127.0.0.1:8080 "+p.Status.PodIP+":80")
	n.remove("a", 1)
	told()
}
