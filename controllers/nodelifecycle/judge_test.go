package nodelifecycle_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/controllers/nodelifecycle"
)

func TestJudge(t *testing.T) {
	now := time.Unix(10000, 0)
	since := &metav1.Time{Time: now.Add(-10 * time.Second)}
	unreachable := []corev1.Taint{{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute, TimeAdded: since}}
	patience := func(key string, seconds *int64) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: seconds})
		}
	}
	stateful := func(p *corev1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "StatefulSet", Name: "s", Controller: new(true)}}
	}
	deleted := func(ago time.Duration) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: now.Add(-ago)} }
	}
	for _, row := range []struct {
		name   string
		taints []corev1.Taint
		health nodelifecycle.Health
		pod    []func(*corev1.Pod)
		want   nodelifecycle.Verdict
		after  time.Duration
	}{
		{name: "no taint, nothing to do", health: nodelifecycle.Unknown, want: nodelifecycle.Keep},
		{name: "patience is not over", taints: unreachable, health: nodelifecycle.Lost, pod: []func(*corev1.Pod){patience(corev1.TaintNodeUnreachable, new(int64(15)))}, want: nodelifecycle.Keep, after: 5 * time.Second},
		{name: "patience is over on a lost node: nobody is there to confirm", taints: unreachable, health: nodelifecycle.Lost, pod: []func(*corev1.Pod){patience(corev1.TaintNodeUnreachable, new(int64(5)))}, want: nodelifecycle.Remove},
		{name: "a daemon stays for ever", taints: unreachable, health: nodelifecycle.Lost, pod: []func(*corev1.Pod){patience(corev1.TaintNodeUnreachable, nil)}, want: nodelifecycle.Keep},
		{name: "a unique pod on a lost node waits for fencing", taints: unreachable, health: nodelifecycle.Lost, pod: []func(*corev1.Pod){stateful}, want: nodelifecycle.Keep},
		{name: "a user's NoExecute taint on a living node evicts with grace", taints: []corev1.Taint{{Key: "drain", Effect: corev1.TaintEffectNoExecute, TimeAdded: since}}, want: nodelifecycle.Evict},
		{name: "and so it does a unique pod", taints: []corev1.Taint{{Key: "drain", Effect: corev1.TaintEffectNoExecute, TimeAdded: since}}, pod: []func(*corev1.Pod){stateful}, want: nodelifecycle.Evict},
		{name: "the shortest of several patiences counts", taints: unreachable, health: nodelifecycle.Lost, pod: []func(*corev1.Pod){patience(corev1.TaintNodeUnreachable, new(int64(300))), patience("", new(int64(1)))}, want: nodelifecycle.Remove},
		{name: "a NoSchedule taint evicts nobody", taints: []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}}, want: nodelifecycle.Keep},
		{name: "a static pod is the node's own", taints: unreachable, health: nodelifecycle.Lost, pod: []func(*corev1.Pod){func(p *corev1.Pod) {
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
		}}, want: nodelifecycle.Keep},
		{name: "a terminating pod on a lost node goes after its grace", taints: unreachable, health: nodelifecycle.Lost, pod: []func(*corev1.Pod){deleted(time.Second)}, want: nodelifecycle.Remove},
		{name: "and not before", taints: unreachable, health: nodelifecycle.Lost, pod: []func(*corev1.Pod){deleted(-3 * time.Second)}, want: nodelifecycle.Keep, after: 3 * time.Second},
		{name: "a terminating unique pod waits", taints: unreachable, health: nodelifecycle.Lost, pod: []func(*corev1.Pod){stateful, deleted(time.Hour)}, want: nodelifecycle.Keep},
		{name: "a terminating pod on a living node is its kubelet's", pod: []func(*corev1.Pod){deleted(time.Hour)}, want: nodelifecycle.Keep},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := &corev1.Pod{}
			for _, f := range row.pod {
				f(p)
			}
			got, after := nodelifecycle.Judge(p, row.taints, row.health, now)
			if got != row.want || after != row.after {
				t.Errorf("verdict %v after %v, want %v after %v", got, after, row.want, row.after)
			}
		})
	}
}

func node(ready corev1.ConditionStatus, taints ...corev1.Taint) *corev1.Node {
	return &corev1.Node{
		Spec:   corev1.NodeSpec{Taints: taints},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}},
	}
}

func keys(taints []corev1.Taint) map[string]bool {
	out := map[string]bool{}
	for _, t := range taints {
		out[t.Key+":"+string(t.Effect)] = true
	}
	return out
}

func TestTaintsFollowConditionsAndLeaveUsersAlone(t *testing.T) {
	now := time.Unix(10000, 0)
	mine := corev1.Taint{Key: "mine", Effect: corev1.TaintEffectNoExecute}
	lost := nodelifecycle.Taints(node(corev1.ConditionUnknown, mine), true, now)
	if got := keys(lost); len(got) != 3 || !got["mine:NoExecute"] || !got["node.kubernetes.io/unreachable:NoExecute"] || !got["node.kubernetes.io/unreachable:NoSchedule"] {
		t.Errorf("lost: %v", got)
	}
	if got := keys(nodelifecycle.Taints(node(corev1.ConditionUnknown), false, now)); len(got) != 1 || !got["node.kubernetes.io/unreachable:NoSchedule"] {
		t.Errorf("lost among many: %v", got)
	}
	later := nodelifecycle.Taints(node(corev1.ConditionUnknown, lost...), true, now.Add(time.Minute))
	for _, x := range later {
		if x.TimeAdded != nil && !x.TimeAdded.Time.Equal(now) {
			t.Errorf("%s: the clock of %v was restarted", x.Key, x.TimeAdded)
		}
	}
	if got := keys(nodelifecycle.Taints(node(corev1.ConditionTrue, lost...), true, now)); len(got) != 1 || !got["mine:NoExecute"] {
		t.Errorf("back again: %v", got)
	}
	if got := keys(nodelifecycle.Taints(node(corev1.ConditionFalse, lost...), true, now)); !got["node.kubernetes.io/not-ready:NoExecute"] || got["node.kubernetes.io/unreachable:NoExecute"] {
		t.Errorf("not ready: %v", got)
	}
}

func TestMassLossStopsEvictions(t *testing.T) {
	mk := func(lost, alive int) []*corev1.Node {
		var out []*corev1.Node
		for range lost {
			out = append(out, node(corev1.ConditionUnknown))
		}
		for range alive {
			out = append(out, node(corev1.ConditionTrue))
		}
		return out
	}
	for _, row := range []struct {
		lost, alive int
		want        bool
	}{{0, 3, false}, {1, 2, false}, {1, 1, false}, {2, 1, true}, {3, 0, true}, {2, 3, false}, {3, 2, true}} {
		if got := nodelifecycle.MassLoss(mk(row.lost, row.alive)); got != row.want {
			t.Errorf("%d of %d lost: %v, want %v", row.lost, row.lost+row.alive, got, row.want)
		}
	}
}
