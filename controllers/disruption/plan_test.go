package disruption_test

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"skein.dev/skein/controllers/disruption"
)

func pod(name, owner string, ready bool) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if owner != "" {
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: owner, UID: types.UID(owner), Controller: new(true)}}
	}
	if ready {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	return p
}

func TestDecide(t *testing.T) {
	now := time.Unix(10000, 0)
	four := []*corev1.Pod{pod("a", "x", true), pod("b", "x", true), pod("c", "x", true), pod("d", "x", false)}
	leaving := pod("e", "x", true)
	leaving.DeletionTimestamp = &metav1.Time{Time: now}
	scale := func(*metav1.OwnerReference) (int32, error) { return 4, nil }
	n, pct := intstr.FromInt32, intstr.FromString
	type want struct{ healthy, desired, expected, allowed int32 }
	for _, row := range []struct {
		name       string
		least, max *intstr.IntOrString
		pods       []*corev1.Pod
		granted    map[string]metav1.Time
		want       want
	}{
		{"minAvailable", new(n(2)), nil, four, nil, want{3, 2, 4, 1}},
		{"minAvailable in percent", new(pct("50%")), nil, four, nil, want{3, 2, 4, 1}},
		{"maxUnavailable", nil, new(n(1)), four, nil, want{3, 3, 4, 0}},
		{"maxUnavailable in percent is rounded up", nil, new(pct("30%")), four, nil, want{3, 2, 4, 1}},
		{"pods that leave are not healthy", new(n(1)), nil, append([]*corev1.Pod{leaving}, four...), nil, want{3, 1, 5, 2}},
		{"granted evictions count", new(n(2)), nil, four, map[string]metav1.Time{"a": metav1.NewTime(now)}, want{2, 2, 4, 0}},
		{"until they are forgotten", new(n(2)), nil, four, map[string]metav1.Time{"a": metav1.NewTime(now.Add(-time.Hour))}, want{3, 2, 4, 1}},
		{"no pods, no disruptions", nil, new(pct("100%")), nil, nil, want{}},
		{"pods without an owner have no share", nil, new(n(1)), []*corev1.Pod{pod("a", "", true), pod("b", "", true)}, nil, want{2, 0, 0, 0}},
	} {
		pdb := &policyv1.PodDisruptionBudget{Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: row.least, MaxUnavailable: row.max}}
		pdb.Status.DisruptedPods = row.granted
		s, after, err := disruption.Decide(pdb, row.pods, scale, now)
		if got := (want{s.CurrentHealthy, s.DesiredHealthy, s.ExpectedPods, s.DisruptionsAllowed}); err != nil || got != row.want {
			t.Errorf("%s: %+v %v, want %+v", row.name, got, err, row.want)
		}
		if (after > 0) != (len(s.DisruptedPods) > 0) {
			t.Errorf("%s: looks again after %v with %d granted", row.name, after, len(s.DisruptedPods))
		}
	}
}

func TestWhatCannotBeCountedMayNotBeDisrupted(t *testing.T) {
	bad := errors.New("no scale")
	pdb := &policyv1.PodDisruptionBudget{Spec: policyv1.PodDisruptionBudgetSpec{MaxUnavailable: new(intstr.FromInt32(1))}}
	pdb.Status.DisruptionsAllowed = 3
	_, _, err := disruption.Decide(pdb, []*corev1.Pod{pod("a", "x", true)}, func(*metav1.OwnerReference) (int32, error) { return 0, bad }, time.Now())
	if !errors.Is(err, bad) {
		t.Fatalf("error %v", err)
	}
	if st := disruption.Failed(pdb, err, time.Now()); st.DisruptionsAllowed != 0 || st.Conditions[0].Reason != policyv1.SyncFailedReason {
		t.Errorf("status %+v", st)
	}
}
