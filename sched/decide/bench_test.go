package decide_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"skein.dev/skein/sched/decide"
)

func node(name, zone, cpu string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelHostname: name, corev1.LabelTopologyZone: zone,
		}},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("32Gi"), corev1.ResourcePods: resource.MustParse("110"),
		}},
	}
}

func pod(name, app, cpu string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name), Labels: map[string]string{"app": app}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	if cpu != "" {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("100Mi")}
	}
	return p
}

// BenchmarkDecide is the whole decide path, assumption and new snapshot
// included, on 1,000 nodes that already hold 5,000 pods.
func BenchmarkDecide(b *testing.B) {
	c := decide.NewCluster()
	for i := range 1000 {
		c.SetNode(node(fmt.Sprintf("node-%d", i), fmt.Sprintf("zone-%d", i%3), "32"))
	}
	for i := range 5000 {
		c.SetPod(fmt.Sprintf("node-%d", i%1000), decide.Prepare(pod(fmt.Sprintf("old-%d", i), fmt.Sprintf("app-%d", i%50), "100m")))
	}
	i := 0
	for b.Loop() {
		p := decide.Prepare(pod(fmt.Sprintf("new-%d", i), fmt.Sprintf("app-%d", i%50), "10m"))
		d := decide.Pod(c.Snapshot(), p, uint64(i))
		if d.Node == "" {
			b.Fatal(d.Message())
		}
		c.SetPod(d.Node, p)
		c.RemovePod(types.UID(fmt.Sprintf("new-%d", i-1000)))
		i++
	}
}
