package daemonset_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"skein.dev/skein/controllers/daemonset"
)

var now = time.Unix(10000, 0)

func set() *appsv1.DaemonSet {
	return &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "d", Namespace: "default", UID: "d"}}
}

func node(name string, taints ...corev1.Taint) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"disk": name}}, Spec: corev1.NodeSpec{Taints: taints}}
}

func pod(on, hash string, ready bool) *corev1.Pod {
	p := daemonset.PodFor(set(), hash, on)
	p.UID, p.CreationTimestamp = types.UID(p.Name), metav1.NewTime(now.Add(-time.Hour))
	p.Status.Phase = corev1.PodRunning
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status, LastTransitionTime: p.CreationTimestamp}}
	return p
}

func change(p *corev1.Pod, f func(*corev1.Pod)) *corev1.Pod { f(p); return p }

func TestDecide(t *testing.T) {
	failed := func(age time.Duration) *corev1.Pod {
		return change(pod("n1", "h", false), func(p *corev1.Pod) {
			p.Status.Phase, p.CreationTimestamp = corev1.PodFailed, metav1.NewTime(now.Add(-age))
		})
	}
	leaving := change(pod("n1", "h", true), func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: now} })
	selects := set()
	selects.Spec.Template.Spec.NodeSelector = map[string]string{"disk": "n2"}
	manual := set()
	manual.Spec.UpdateStrategy.Type = appsv1.OnDeleteDaemonSetStrategyType
	for _, row := range []struct {
		name   string
		ds     *appsv1.DaemonSet
		nodes  []*corev1.Node
		pods   []*corev1.Pod
		create []string
		del    int
	}{
		{name: "every node gets a pod", ds: set(), nodes: []*corev1.Node{node("n1"), node("n2")}, create: []string{"n1", "n2"}},
		{name: "a node that has one gets no second", ds: set(), nodes: []*corev1.Node{node("n1"), node("n2")}, pods: []*corev1.Pod{pod("n1", "h", true)}, create: []string{"n2"}},
		{name: "the selector counts", ds: selects, nodes: []*corev1.Node{node("n1"), node("n2")}, create: []string{"n2"}},
		{name: "and drives pods off", ds: selects, nodes: []*corev1.Node{node("n1"), node("n2")}, pods: []*corev1.Pod{pod("n1", "h", true), pod("n2", "h", true)}, del: 1},
		{name: "cordoned and lost nodes have daemons too", ds: set(), nodes: []*corev1.Node{
			node("n1", corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}),
			node("n2", corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute}),
		}, create: []string{"n1", "n2"}},
		{name: "a user's NoSchedule taint keeps new ones off and old ones on", ds: set(), nodes: []*corev1.Node{
			node("n1", corev1.Taint{Key: "k", Effect: corev1.TaintEffectNoSchedule}), node("n2", corev1.Taint{Key: "k", Effect: corev1.TaintEffectNoSchedule}),
		}, pods: []*corev1.Pod{pod("n1", "h", true)}},
		{name: "a user's NoExecute taint drives pods off", ds: set(), nodes: []*corev1.Node{node("n1", corev1.Taint{Key: "k", Effect: corev1.TaintEffectNoExecute})}, pods: []*corev1.Pod{pod("n1", "h", true)}, del: 1},
		{name: "a failed pod is replaced", ds: set(), nodes: []*corev1.Node{node("n1")}, pods: []*corev1.Pod{failed(time.Minute)}, del: 1},
		{name: "but not at once", ds: set(), nodes: []*corev1.Node{node("n1")}, pods: []*corev1.Pod{failed(time.Second)}},
		{name: "a leaving pod holds its node", ds: set(), nodes: []*corev1.Node{node("n1")}, pods: []*corev1.Pod{leaving}},
		{name: "of two the older stays", ds: set(), nodes: []*corev1.Node{node("n1")}, pods: []*corev1.Pod{pod("n1", "h", true), pod("n1", "h", true)}, del: 1},
		{
			name: "an update takes one node at a time", ds: set(), nodes: []*corev1.Node{node("n1"), node("n2"), node("n3")},
			pods: []*corev1.Pod{pod("n1", "old", true), pod("n2", "old", true), pod("n3", "old", true)}, del: 1,
		},
		{name: "and waits for the one that comes up", ds: set(), nodes: []*corev1.Node{node("n1"), node("n2")}, pods: []*corev1.Pod{pod("n1", "h", false), pod("n2", "old", true)}},
		{name: "an old pod that serves nobody goes first", ds: set(), nodes: []*corev1.Node{node("n1"), node("n2")}, pods: []*corev1.Pod{pod("n1", "old", false), pod("n2", "old", true)}, del: 1},
		{name: "OnDelete leaves the update to the user", ds: manual, nodes: []*corev1.Node{node("n1")}, pods: []*corev1.Pod{pod("n1", "old", true)}},
		{name: "pods of nodes that are gone go", ds: set(), pods: []*corev1.Pod{pod("n9", "h", true)}, del: 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := daemonset.Decide(row.ds, "h", row.nodes, row.pods, now)
			if !slices.Equal(p.Create, row.create) || len(p.Delete) != row.del {
				t.Errorf("creates on %v and deletes %d, want %v and %d", p.Create, len(p.Delete), row.create, row.del)
			}
		})
	}
}

func TestRollingUpdateNeverTakesMoreThanItMay(t *testing.T) {
	var nodes []*corev1.Node
	var pods []*corev1.Pod
	for i := range 7 {
		n := fmt.Sprintf("n%d", i)
		nodes, pods = append(nodes, node(n)), append(pods, pod(n, "old", true))
	}
	for step := 0; ; step++ {
		p := daemonset.Decide(set(), "h", nodes, pods, now)
		if p.Status.NumberUnavailable > 1 || len(p.Delete) > 1 {
			t.Fatalf("step %d: %d unavailable, %d deleted", step, p.Status.NumberUnavailable, len(p.Delete))
		}
		if p.Status.UpdatedNumberScheduled == 7 {
			return
		}
		if step > 50 {
			t.Fatalf("the update does not end: %+v", p.Status)
		}
		for i := range pods { // pods that came in the last step become ready
			pods[i].Status.Conditions[0].Status = corev1.ConditionTrue
		}
		for _, gone := range p.Delete {
			pods = slices.DeleteFunc(pods, func(x *corev1.Pod) bool { return x.UID == gone.UID })
		}
		for _, n := range p.Create {
			pods = append(pods, pod(n, "h", false))
		}
	}
}
