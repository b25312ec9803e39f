package real_test

import (
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// BenchmarkPodStart is from a bound pod in the API to its status Running in
// the API, with the image there.
func BenchmarkPodStart(b *testing.B) {
	n := newNode(b)
	i := 0
	for b.Loop() {
		name := "b" + strconv.Itoa(i)
		i++
		n.create(pod(name, "sleep 1000", nil))
		n.eventually(name, "running", func(p *corev1.Pod) bool { return p != nil && p.Status.Phase == corev1.PodRunning })
		b.StopTimer()
		n.remove(name, 0)
		n.eventually(name, "gone", gone)
		b.StartTimer()
	}
}
