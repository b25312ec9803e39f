package decide_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"skein.dev/skein/sched/decide"
)

type room struct {
	*decide.Cluster
}

func newRoom(nodes ...string) *room {
	r := &room{decide.NewCluster()}
	for _, n := range nodes {
		r.SetNode(&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: n, Labels: map[string]string{corev1.LabelHostname: n}},
			Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("10"),
			}},
		})
	}
	return r
}

func ranked(name string, priority int32, cpu string, edit ...func(*corev1.Pod)) *decide.Prepared {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name), Labels: map[string]string{"app": name[:1]}},
		Spec: corev1.PodSpec{Priority: &priority, Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)},
		}}}},
	}
	for _, f := range edit {
		f(p)
	}
	return decide.Prepare(p)
}

func started(minutes int) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.StartTime = &metav1.Time{Time: time.Unix(int64(60*minutes), 0)} }
}

func TestPreempt(t *testing.T) {
	budget := func(app string, allowed int32) decide.Budget {
		return decide.Budget{Namespace: "default", Selector: labels.SelectorFromSet(labels.Set{"app": app}), Allowed: allowed}
	}
	never := corev1.PreemptNever
	port := func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80, ContainerPort: 80}}
	}
	for _, row := range []struct {
		name    string
		pod     *decide.Prepared
		on      map[string][]*decide.Prepared
		budgets []decide.Budget
		want    string // node: victims
		message string
	}{
		{name: "the lower priority goes", pod: ranked("x", 10, "3"), on: map[string][]*decide.Prepared{"n1": {ranked("a", 5, "2")}, "n2": {ranked("b", 10, "2")}}, want: "n1: a"},
		{
			name: "equal priorities do not", pod: ranked("x", 5, "3"), on: map[string][]*decide.Prepared{"n1": {ranked("a", 5, "2")}, "n2": {ranked("b", 9, "2")}},
			message: "preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.",
		},
		{name: "no more than needed", pod: ranked("x", 10, "2"), on: map[string][]*decide.Prepared{"n1": {ranked("a", 1, "1"), ranked("b", 2, "2"), ranked("c", 3, "1")}, "n2": {ranked("d", 10, "4")}}, want: "n1: b"},
		{name: "the node whose victims matter least", pod: ranked("x", 10, "4"), on: map[string][]*decide.Prepared{"n1": {ranked("a", 5, "2")}, "n2": {ranked("b", 2, "1"), ranked("c", 3, "1")}}, want: "n2: c b"},
		{name: "fewer victims", pod: ranked("x", 10, "4"), on: map[string][]*decide.Prepared{"n1": {ranked("a", 5, "1"), ranked("b", 5, "1")}, "n2": {ranked("c", 5, "2")}}, want: "n2: c"},
		{name: "the younger", pod: ranked("x", 10, "4"), on: map[string][]*decide.Prepared{"n1": {ranked("a", 5, "2", started(1))}, "n2": {ranked("b", 5, "2", started(9))}}, want: "n2: b"},
		{name: "budgets are kept where they can be", pod: ranked("x", 10, "4"), on: map[string][]*decide.Prepared{"n1": {ranked("a", 1, "2")}, "n2": {ranked("b", 9, "2")}}, budgets: []decide.Budget{budget("a", 0)}, want: "n2: b"},
		{name: "and broken where they must be", pod: ranked("x", 10, "4"), on: map[string][]*decide.Prepared{"n1": {ranked("a", 1, "2")}, "n2": {ranked("b", 11, "2")}}, budgets: []decide.Budget{budget("a", 0)}, want: "n1: a"},
		{name: "within a node the budget chooses", pod: ranked("x", 10, "2"), on: map[string][]*decide.Prepared{"n1": {ranked("a", 1, "2"), ranked("b", 2, "2")}, "n2": {ranked("c", 11, "4")}}, budgets: []decide.Budget{budget("a", 0)}, want: "n1: b"},
		{name: "host ports count", pod: ranked("x", 10, "1", port), on: map[string][]*decide.Prepared{"n1": {ranked("a", 1, "1", port)}, "n2": {ranked("b", 11, "1", port)}}, want: "n1: a"},
		{
			name: "never is never", pod: ranked("x", 10, "4", func(p *corev1.Pod) { p.Spec.PreemptionPolicy = &never }), on: map[string][]*decide.Prepared{"n1": {ranked("a", 1, "2")}, "n2": {ranked("b", 1, "2")}},
			message: "preemption: not eligible due to preemptionPolicy=Never.",
		},
		{
			name: "where nothing helps nobody goes", pod: ranked("x", 10, "40"), on: map[string][]*decide.Prepared{"n1": {ranked("a", 1, "2")}, "n2": {ranked("b", 1, "2")}},
			message: "preemption: 0/2 nodes are available: 2 Insufficient cpu.",
		},
		{
			name: "a selector that matches no node is not helped", pod: ranked("x", 10, "1", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"no": "where"} }),
			on: map[string][]*decide.Prepared{"n1": {ranked("a", 1, "2")}}, message: "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRoom("n1", "n2")
			for n, pods := range row.on {
				for _, p := range pods {
					r.SetPod(n, p)
				}
			}
			s := r.Snapshot()
			d := decide.Pod(s, row.pod, 1)
			if d.Node != "" {
				t.Fatalf("fits on %s", d.Node)
			}
			got := decide.Preempt(s, row.pod, d, row.budgets)
			text := ""
			if got.Node != "" {
				var names []string
				for _, v := range got.Victims {
					names = append(names, v.Object.Name)
				}
				text = got.Node + ": " + strings.Join(names, " ")
			}
			if text != row.want || got.Message != row.message {
				t.Errorf("%q %q, want %q %q", text, got.Message, row.want, row.message)
			}
		})
	}
}

func TestNominatedRoomIsKeptFromLesserPods(t *testing.T) {
	r := newRoom("n1")
	high := ranked("high", 10, "3")
	r.Nominate(high, "n1")
	if d := decide.Pod(r.Snapshot(), ranked("low", 5, "2"), 1); d.Node != "" {
		t.Error("a lesser pod takes the room")
	}
	if d := decide.Pod(r.Snapshot(), ranked("top", 20, "2"), 1); d.Node != "n1" {
		t.Error("a greater pod does not get it")
	}
	if d := decide.Pod(r.Snapshot(), high, 1); d.Node != "n1" {
		t.Error("the pod itself does not get it")
	}
	r.Forget(high.Object.UID)
	if d := decide.Pod(r.Snapshot(), ranked("low", 5, "2"), 1); d.Node != "n1" {
		t.Error("the room is kept for nobody")
	}
}

func TestAPodWaitsForItsVictims(t *testing.T) {
	r := newRoom("n1")
	victim := ranked("a", 1, "3")
	victim.Object.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	victim.Object.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler}}
	r.SetPod("n1", victim)
	pod := ranked("x", 10, "3")
	r.Nominate(pod, "n1")
	s := r.Snapshot()
	got := decide.Preempt(s, pod, decide.Pod(s, pod, 1), nil)
	if got.Node != "" || got.Eligible || !strings.Contains(got.Message, "terminating pod") {
		t.Errorf("%+v", got)
	}
}

func TestAssignGivesEachClaimItsOwnVolume(t *testing.T) {
	r := newRoom("n1")
	n := r.Snapshot().Node("n1")
	p := ranked("x", 0, "1")
	for i, row := range []struct {
		waiting []decide.Waiting
		want    []string
	}{
		{[]decide.Waiting{{Candidates: []decide.Candidate{{Name: "v1"}}}, {Candidates: []decide.Candidate{{Name: "v1"}, {Name: "v2"}}}}, []string{"v1", "v2"}},
		{[]decide.Waiting{{Candidates: []decide.Candidate{{Name: "v1"}}}, {Candidates: []decide.Candidate{{Name: "v1"}}}}, nil},
		{[]decide.Waiting{{Candidates: []decide.Candidate{{Name: "v1"}}}, {Candidates: []decide.Candidate{{Name: "v1"}}, Provisions: true}}, []string{"v1", ""}},
		{[]decide.Waiting{{}}, nil},
	} {
		p.Waiting = row.waiting
		got, ok := decide.Assign(n, p)
		if ok != (row.want != nil) || !slices.Equal(got, row.want) {
			t.Errorf("%d: %v %v, want %v", i, got, ok, row.want)
		}
	}
}
