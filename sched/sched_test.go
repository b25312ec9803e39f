package sched_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/events"

	"skein.dev/skein/api/component"
	"skein.dev/skein/api/role"
	"skein.dev/skein/sched"
)

// cluster is a fake API whose bindings take effect, with a scheduler on it.
type cluster struct {
	*testing.T
	client   *fake.Clientset
	recorder *events.FakeRecorder
}

func start(t *testing.T, objects ...runtime.Object) *cluster {
	t.Helper()
	c := &cluster{T: t, client: fake.NewClientset(objects...), recorder: events.NewFakeRecorder(1000)}
	c.client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if a.GetSubresource() != "binding" {
			return false, nil, nil
		}
		b := a.(clienttesting.CreateAction).GetObject().(*corev1.Binding)
		obj, err := c.client.Tracker().Get(corev1.SchemeGroupVersion.WithResource("pods"), b.Namespace, b.Name)
		if err != nil {
			return true, nil, err
		}
		p := obj.(*corev1.Pod).DeepCopy()
		p.Spec.NodeName = b.Target.Name
		return true, b, c.client.Tracker().Update(corev1.SchemeGroupVersion.WithResource("pods"), p, b.Namespace)
	})
	factory := informers.NewSharedInformerFactory(kubernetes.Interface(c.client), 0)
	s, err := sched.New(sched.Config{Kit: component.Kit{
		Client: c.client, Informers: factory, Recorder: c.recorder, Log: slog.New(slog.DiscardHandler),
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	factory.Start(ctx.Done())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, role.Fence{Role: role.Scheduler, Epoch: 7}, nil) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		factory.Shutdown()
	})
	return c
}

// nodeOf waits until the pod has a node.
func (c *cluster) nodeOf(name string) string {
	c.Helper()
	var got string
	c.wait("pod "+name+" is bound", func() bool {
		p, err := c.client.CoreV1().Pods("default").Get(c.Context(), name, metav1.GetOptions{})
		if err != nil {
			c.Fatal(err)
		}
		got = p.Spec.NodeName
		return got != ""
	})
	return got
}

func (c *cluster) wait(what string, ok func() bool) {
	c.Helper()
	for range 3000 {
		if ok() {
			return
		}
		select {
		case <-c.Context().Done():
			c.Fatal("test ended while waiting: " + what)
		case <-time.After(10 * time.Millisecond):
		}
	}
	c.Fatal("never came: " + what)
}

func (c *cluster) event(part string) string {
	c.Helper()
	for {
		select {
		case e := <-c.recorder.Events:
			if strings.Contains(e, part) {
				return e
			}
		case <-time.After(30 * time.Second):
			c.Fatal("no event with " + part)
		}
	}
}

func node(name, cpu string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("4Gi"), corev1.ResourcePods: resource.MustParse("110"),
		}},
	}
}

func pod(name, cpu string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID("uid-" + name), Labels: map[string]string{"app": "a"}},
		Spec: corev1.PodSpec{SchedulerName: corev1.DefaultSchedulerName, Containers: []corev1.Container{{
			Name: "c", Image: "i",
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}},
		}}},
	}
}

func (c *cluster) create(p *corev1.Pod) {
	c.Helper()
	if _, err := c.client.CoreV1().Pods("default").Create(c.Context(), p, metav1.CreateOptions{}); err != nil {
		c.Fatal(err)
	}
}

func TestPodsOfOneAppAreSpreadOverTheNodes(t *testing.T) {
	c := start(t, node("n1", "4"), node("n2", "4"), node("n3", "4"))
	count := map[string]int{}
	for i := range 9 {
		name := fmt.Sprintf("p%d", i)
		c.create(pod(name, "100m"))
		count[c.nodeOf(name)]++
	}
	for n, got := range count {
		if got != 3 {
			t.Errorf("%s has %d of 9 pods, want 3", n, got)
		}
	}
}

func TestRefusedPodSaysWhyAndIsPlacedWhenANodeComes(t *testing.T) {
	c := start(t, node("n1", "1"), node("n2", "1"))
	c.create(pod("big", "2"))
	want := "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
	if e := c.event("FailedScheduling"); !strings.Contains(e, want) {
		t.Errorf("event %q, want %q", e, want)
	}
	c.wait("the condition", func() bool {
		p, err := c.client.CoreV1().Pods("default").Get(t.Context(), "big", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, cond := range p.Status.Conditions {
			if cond.Type == corev1.PodScheduled && cond.Reason == corev1.PodReasonUnschedulable && cond.Message == want {
				return true
			}
		}
		return false
	})
	if _, err := c.client.CoreV1().Nodes().Create(t.Context(), node("n3", "4"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := c.nodeOf("big"); got != "n3" {
		t.Errorf("bound to %s, want n3", got)
	}
}

func TestPodWaitsUntilAnotherLeaves(t *testing.T) {
	c := start(t, node("n1", "1"))
	c.create(pod("first", "800m"))
	c.nodeOf("first")
	c.create(pod("second", "800m"))
	c.event("FailedScheduling")
	if err := c.client.CoreV1().Pods("default").Delete(t.Context(), "first", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.nodeOf("second")
}

func TestPodsOfAnotherSchedulerAndGatedPodsAreLeftAlone(t *testing.T) {
	c := start(t, node("n1", "4"))
	other, gated := pod("other", "1"), pod("gated", "1")
	other.Spec.SchedulerName = "mine"
	gated.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}}
	c.create(other)
	c.create(gated)
	c.create(pod("plain", "1"))
	c.nodeOf("plain")
	for _, name := range []string{"other", "gated"} {
		p, err := c.client.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if p.Spec.NodeName != "" {
			t.Errorf("pod %s was bound to %s", name, p.Spec.NodeName)
		}
	}
	gated.Spec.SchedulingGates = nil
	if _, err := c.client.CoreV1().Pods("default").Update(t.Context(), gated, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.nodeOf("gated")
}
