package kubelet_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func amounts(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}

// resize asks for other amounts as the API's resize does.
func (n *node) resize(name, container, cpu, memory string) corev1.ResourceRequirements {
	n.Helper()
	p, err := n.client.CoreV1().Pods("default").Get(n.Context(), name, metav1.GetOptions{})
	if err != nil {
		n.Fatal(err)
	}
	want := corev1.ResourceRequirements{Requests: amounts(cpu, memory), Limits: amounts(cpu, memory)}
	for i := range p.Spec.Containers {
		if p.Spec.Containers[i].Name == container {
			p.Spec.Containers[i].Resources = want
		}
	}
	if _, err := n.client.CoreV1().Pods("default").Update(n.Context(), p, metav1.UpdateOptions{}); err != nil {
		n.Fatal(err)
	}
	return want
}

func resizing(p *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == kind {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

func TestARunningPodGetsOtherResources(t *testing.T) {
	n := newNode(t)
	n.create(pod("a", func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, *p.Spec.Containers[0].DeepCopy())
		p.Spec.Containers[1].Name = "restarts"
		p.Spec.Containers[1].ResizePolicy = []corev1.ContainerResizePolicy{
			{ResourceName: corev1.ResourceCPU, RestartPolicy: corev1.NotRequired},
			{ResourceName: corev1.ResourceMemory, RestartPolicy: corev1.RestartContainer},
		}
		for i := range p.Spec.Containers {
			p.Spec.Containers[i].Resources = corev1.ResourceRequirements{Requests: amounts("100m", "64Mi"), Limits: amounts("100m", "64Mi")}
		}
	}))
	has := func(i int, want corev1.ResourceRequirements) func(*corev1.Pod) bool {
		return func(p *corev1.Pod) bool {
			if !running(p) || resizing(p, corev1.PodResizeInProgress) != nil || resizing(p, corev1.PodResizePending) != nil {
				return false
			}
			c := p.Status.ContainerStatuses[i]
			return c.Resources != nil && equality.Semantic.DeepEqual(*c.Resources, want) && equality.Semantic.DeepEqual(c.AllocatedResources, want.Requests)
		}
	}
	n.eventually("a", "told what it has", has(0, corev1.ResourceRequirements{Requests: amounts("100m", "64Mi"), Limits: amounts("100m", "64Mi")}))

	want := n.resize("a", "app", "200m", "32Mi")
	n.eventually("a", "resized", has(0, want))
	if r := n.runtime.Updated("app"); r == nil || r.CpuQuota != 20000 || r.MemoryLimitInBytes != 32<<20 {
		t.Errorf("the runtime was told %v", r)
	}
	want = n.resize("a", "restarts", "150m", "64Mi")
	p := n.eventually("a", "resized", has(1, want))
	if n.runtime.Updated("restarts") == nil || p.Status.ContainerStatuses[1].RestartCount != 0 {
		t.Errorf("CPU does not need a restart: %+v", p.Status.ContainerStatuses[1])
	}
	want = n.resize("a", "restarts", "150m", "128Mi")
	p = n.eventually("a", "resized", func(p *corev1.Pod) bool {
		return has(1, want)(p) && p.Status.ContainerStatuses[1].RestartCount == 1
	})
	if r := n.runtime.Config("restarts").Linux.Resources; r.MemoryLimitInBytes != 128<<20 || p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("restarted with %v: %+v", r, p.Status.ContainerStatuses)
	}

	n.resize("a", "app", "100000", "32Mi")
	p = n.eventually("a", "refused", func(p *corev1.Pod) bool { return resizing(p, corev1.PodResizePending) != nil })
	if c := resizing(p, corev1.PodResizePending); c.Reason != corev1.PodReasonInfeasible || p.Status.ContainerStatuses[0].Resources.Limits.Cpu().String() != "200m" {
		t.Errorf("condition %+v, resources %v", c, p.Status.ContainerStatuses[0].Resources)
	}
	// It was refused, and holds for a kubelet that starts now, too.
	n.stop()
	n.start()
	n.resize("a", "app", "200m", "32Mi")
	p = n.eventually("a", "as before", func(p *corev1.Pod) bool { return resizing(p, corev1.PodResizePending) == nil })
	if c := p.Status.ContainerStatuses[0]; c.RestartCount != 0 || c.Resources.Limits.Cpu().String() != "200m" {
		t.Errorf("status %+v", c)
	}
}
