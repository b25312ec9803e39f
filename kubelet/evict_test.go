package kubelet_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Nothing has all of its memory free: with that as its threshold a node is
// always short.
func TestANodeThatRunsShortEvictsItsLeastPodAndSaysSo(t *testing.T) {
	n := newNode(t)
	n.stop()
	asks := func(priority int32) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Priority = &priority
			p.Spec.Containers[0].Name = "app-" + p.Name
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Mi")}
		}
	}
	n.create(pod("system", asks(2_000_000_000)))
	n.create(pod("modest", asks(0)))
	n.create(pod("least", asks(1)))
	n.evictionHard = map[string]string{"memory.available": "100%"}
	n.start()
	for _, name := range []string{"system", "modest", "least"} {
		n.eventually(name, "running", running)
	}
	n.underMemoryPressure()
	// Before it knows who uses how much it evicts nobody: that would be the
	// least important one, who uses no more than it asked for.
	n.runtime.Use("app-least", 64<<20)

	p := n.eventually("least", "evicted", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if p.Status.Reason != "Evicted" || !strings.HasPrefix(p.Status.Message, "The node was low on resource: memory. Threshold quantity: ") {
		t.Errorf("status %s %q", p.Status.Reason, p.Status.Message)
	}
	disrupted := false
	for _, c := range p.Status.Conditions {
		disrupted = disrupted || c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == "TerminationByKubelet"
	}
	if !disrupted {
		t.Errorf("conditions %+v", p.Status.Conditions)
	}
	n.eventually("least", "gone from the runtime", func(*corev1.Pod) bool {
		s, c := n.runtime.Left()
		return s == 2 && c == 2 // the others stay
	})
	for name, who := range map[string]string{"system": "a critical pod", "modest": "one that uses less than it asked for"} {
		if p := n.eventually(name, "known", func(*corev1.Pod) bool { return true }); p.Status.Phase != corev1.PodRunning {
			t.Errorf("%s: %s", who, p.Status.Phase)
		}
	}
	n.create(pod("nothing", nil))
	p = n.eventually("nothing", "refused", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if p.Status.Reason != "Evicted" || p.Status.Message != "Pod was rejected: The node had condition: [MemoryPressure]. " {
		t.Errorf("a pod that asks for nothing: %s %q", p.Status.Reason, p.Status.Message)
	}
}

// underMemoryPressure waits until the node says that it is.
func (n *node) underMemoryPressure() {
	n.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		node, err := n.client.CoreV1().Nodes().Get(n.Context(), "n1", metav1.GetOptions{})
		if err == nil && len(node.Status.Conditions) > 0 && node.Status.Conditions[0].Status == corev1.ConditionTrue {
			if c := node.Status.Conditions[0]; c.Type != corev1.NodeMemoryPressure || c.Reason != "KubeletHasInsufficientMemory" {
				n.Errorf("condition %+v", c)
			}
			return
		}
		if time.Now().After(end) {
			n.Fatalf("the node does not say so: %+v, %v", node.Status.Conditions, err)
		}
	}
}
