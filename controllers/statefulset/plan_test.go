package statefulset_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"skein.dev/skein/controllers/statefulset"
)

var now = time.Unix(10000, 0)

func set(replicas int32, edit ...func(*appsv1.StatefulSet)) *appsv1.StatefulSet {
	s := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: "s"}, Spec: appsv1.StatefulSetSpec{
		Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, ServiceName: "svc",
	}}
	s.Spec.UpdateStrategy.Type = appsv1.RollingUpdateStatefulSetStrategyType
	for _, f := range edit {
		f(s)
	}
	return s
}

func parallel(s *appsv1.StatefulSet) { s.Spec.PodManagementPolicy = appsv1.ParallelPodManagement }

func partition(n int32) func(*appsv1.StatefulSet) {
	return func(s *appsv1.StatefulSet) {
		s.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: &n}
	}
}

func claims(s *appsv1.StatefulSet) {
	s.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}}
}

type state int

const (
	ready state = iota
	pending
	leaving
	failed
)

func pod(s *appsv1.StatefulSet, revision string, ordinal int, st state) *corev1.Pod {
	p := statefulset.PodFor(s, &s.Spec.Template, revision, ordinal)
	p.UID, p.CreationTimestamp = types.UID(p.Name+"-uid"), metav1.NewTime(now.Add(-time.Hour))
	p.Status.Phase = corev1.PodRunning
	c := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Minute))}
	switch st {
	case ready:
	case pending:
		p.Status.Phase, c.Status = corev1.PodPending, corev1.ConditionFalse
	case leaving:
		p.DeletionTimestamp = &metav1.Time{Time: now}
	case failed:
		p.Status.Phase, c.Status = corev1.PodFailed, corev1.ConditionFalse
	}
	p.Status.Conditions = []corev1.PodCondition{c}
	return p
}

func podNames(all []*corev1.Pod) []string {
	out := []string{}
	for _, p := range all {
		out = append(out, p.Name)
	}
	return out
}

func TestDecide(t *testing.T) {
	s3, p3 := set(3), set(3, parallel)
	type row struct {
		name           string
		set            *appsv1.StatefulSet
		pods           []*corev1.Pod
		create, delete []string
	}
	for _, r := range []row{
		{name: "the first ordinal comes first", set: s3, create: []string{"web-0"}},
		{name: "the next waits for the one before", set: s3, pods: []*corev1.Pod{pod(s3, "b", 0, pending)}},
		{name: "and comes when that is ready", set: s3, pods: []*corev1.Pod{pod(s3, "b", 0, ready)}, create: []string{"web-1"}},
		{name: "a gap is filled first", set: s3, pods: []*corev1.Pod{pod(s3, "b", 0, ready), pod(s3, "b", 2, ready)}, create: []string{"web-1"}},
		{name: "a leaving pod keeps its place", set: s3, pods: []*corev1.Pod{pod(s3, "b", 0, leaving), pod(s3, "b", 1, ready), pod(s3, "b", 2, ready)}},
		{name: "a failed pod is given up", set: s3, pods: []*corev1.Pod{pod(s3, "b", 0, failed), pod(s3, "b", 1, ready)}, delete: []string{"web-0"}},
		{name: "parallel sets wait for nobody", set: p3, pods: []*corev1.Pod{pod(p3, "b", 1, pending)}, create: []string{"web-0", "web-2"}},
		{name: "scaling down takes the highest first", set: set(1), pods: []*corev1.Pod{pod(s3, "b", 0, ready), pod(s3, "b", 1, ready), pod(s3, "b", 2, ready)}, delete: []string{"web-2"}},
		{name: "and waits while a lower one is not ready", set: set(1), pods: []*corev1.Pod{pod(s3, "b", 0, pending), pod(s3, "b", 1, ready)}},
		{name: "in parallel all at once", set: set(1, parallel), pods: []*corev1.Pod{pod(s3, "b", 0, pending), pod(s3, "b", 1, ready), pod(s3, "b", 2, ready)}, delete: []string{"web-2", "web-1"}},
		{name: "an update begins at the end", set: s3, pods: []*corev1.Pod{pod(s3, "a", 0, ready), pod(s3, "a", 1, ready), pod(s3, "a", 2, ready)}, delete: []string{"web-2"}},
		{name: "and goes on when that is ready", set: s3, pods: []*corev1.Pod{pod(s3, "a", 0, ready), pod(s3, "a", 1, ready), pod(s3, "b", 2, ready)}, delete: []string{"web-1"}},
		{name: "but not below the partition", set: set(3, partition(2)), pods: []*corev1.Pod{pod(s3, "a", 0, ready), pod(s3, "a", 1, ready), pod(s3, "b", 2, ready)}},
		{name: "a partition beyond the end updates nothing", set: set(3, partition(9)), pods: []*corev1.Pod{pod(s3, "a", 0, ready), pod(s3, "a", 1, ready), pod(s3, "a", 2, ready)}},
		{name: "maxUnavailable counts", set: set(3, partition(0), func(s *appsv1.StatefulSet) {
			two := intstr.FromInt32(2)
			s.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable = &two
		}), pods: []*corev1.Pod{pod(s3, "a", 0, ready), pod(s3, "a", 1, ready), pod(s3, "a", 2, ready)}, delete: []string{"web-2", "web-1"}},
		{
			name: "OnDelete leaves the update to the user", set: set(3, func(s *appsv1.StatefulSet) { s.Spec.UpdateStrategy.Type = appsv1.OnDeleteStatefulSetStrategyType }),
			pods: []*corev1.Pod{pod(s3, "a", 0, ready), pod(s3, "a", 1, ready), pod(s3, "a", 2, ready)},
		},
		{
			name: "ordinals start where they should", set: set(2, parallel, func(s *appsv1.StatefulSet) { s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: 5} }),
			pods: []*corev1.Pod{pod(s3, "b", 0, ready)}, create: []string{"web-5", "web-6"}, delete: []string{"web-0"},
		},
		{name: "a set being deleted does nothing", set: set(3, func(s *appsv1.StatefulSet) { s.DeletionTimestamp = &metav1.Time{Time: now} })},
		{name: "minReadySeconds holds the next one back", set: set(2, func(s *appsv1.StatefulSet) { s.Spec.MinReadySeconds = 120 }), pods: []*corev1.Pod{pod(s3, "b", 0, ready)}},
	} {
		t.Run(r.name, func(t *testing.T) {
			p := statefulset.Decide(statefulset.Input{
				Set: r.set, Pods: r.pods, Now: now, Claim: func(string) *corev1.PersistentVolumeClaim { return nil },
				Current: statefulset.Revision{Name: "a", Template: &r.set.Spec.Template}, Update: statefulset.Revision{Name: "b", Template: &r.set.Spec.Template},
			})
			if got := podNames(p.Create); !slices.Equal(got, append([]string{}, r.create...)) {
				t.Errorf("creates %v, want %v", got, r.create)
			}
			if got := podNames(p.Delete); !slices.Equal(got, append([]string{}, r.delete...)) {
				t.Errorf("deletes %v, want %v", got, r.delete)
			}
		})
	}
}

func TestPodsBelowThePartitionComeBackByTheOldRevision(t *testing.T) {
	s := set(3, partition(1))
	for ordinal, want := range []string{"a", "b"} {
		var have []*corev1.Pod
		for i := range 3 {
			if i != ordinal {
				have = append(have, pod(s, "b", i, ready))
			}
		}
		p := statefulset.Decide(statefulset.Input{
			Set: s, Pods: have, Now: now, Claim: func(string) *corev1.PersistentVolumeClaim { return nil },
			Current: statefulset.Revision{Name: "a", Template: &s.Spec.Template}, Update: statefulset.Revision{Name: "b", Template: &s.Spec.Template},
		})
		if len(p.Create) != 1 || p.Create[0].Labels[appsv1.StatefulSetRevisionLabel] != want {
			t.Errorf("ordinal %d comes back as %v, want revision %s", ordinal, p.Create, want)
		}
	}
}

func TestClaimsComeBeforeTheirPodAndStayWithTheirName(t *testing.T) {
	s := set(1, claims)
	have := map[string]*corev1.PersistentVolumeClaim{}
	decide := func() statefulset.Plan {
		return statefulset.Decide(statefulset.Input{
			Set: s, Now: now, Claim: func(n string) *corev1.PersistentVolumeClaim { return have[n] },
			Current: statefulset.Revision{Name: "b", Template: &s.Spec.Template}, Update: statefulset.Revision{Name: "b", Template: &s.Spec.Template},
		})
	}
	p := decide()
	if len(p.Claims) != 1 || p.Claims[0].Name != "data-web-0" || len(p.Create) != 1 {
		t.Fatalf("plan is %+v, want the claim data-web-0 and its pod", p)
	}
	if v := p.Create[0].Spec.Volumes; len(v) != 1 || v[0].PersistentVolumeClaim.ClaimName != "data-web-0" {
		t.Errorf("the pod's volumes are %+v", v)
	}
	have["data-web-0"] = p.Claims[0]
	if p := decide(); len(p.Claims) != 0 || len(p.Create) != 1 {
		t.Errorf("an existing claim is made again: %+v", p.Claims)
	}
	have["data-web-0"].DeletionTimestamp = &metav1.Time{Time: now}
	if p := decide(); len(p.Create) != 0 || p.After == 0 {
		t.Errorf("a pod is made on a claim that is being deleted")
	}
}

func TestOwnersFollowTheRetentionPolicy(t *testing.T) {
	const keep, del = appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	for _, row := range []struct {
		deleted, scaled appsv1.PersistentVolumeClaimRetentionPolicyType
		ordinal         int
		want            string
	}{
		{keep, keep, 0, ""},
		{del, keep, 0, "StatefulSet"},
		{keep, del, 0, ""},
		{del, del, 0, "StatefulSet"},
		{keep, keep, 5, ""},
		{del, keep, 5, "StatefulSet"},
		{keep, del, 5, "Pod"},
		{del, del, 5, "Pod"},
	} {
		s := set(1, claims, func(s *appsv1.StatefulSet) {
			s.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenDeleted: row.deleted, WhenScaled: row.scaled}
		})
		p := pod(s, "b", row.ordinal, ready)
		claim := &corev1.PersistentVolumeClaim{}
		claim.OwnerReferences, _ = statefulset.Owners(claim, s, p)
		got := ""
		for _, ref := range claim.OwnerReferences {
			got += ref.Kind
		}
		if got != row.want {
			t.Errorf("deleted %s, scaled %s, ordinal %d: owned by %q, want %q", row.deleted, row.scaled, row.ordinal, got, row.want)
		}
		if _, again := statefulset.Owners(claim, s, p); again {
			t.Errorf("deleted %s, scaled %s, ordinal %d: what was written is written again", row.deleted, row.scaled, row.ordinal)
		}
	}
	s := set(1, claims)
	stranger := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "web", UID: "other"}}}}
	if _, changed := statefulset.Owners(stranger, s, pod(s, "b", 0, ready)); changed {
		t.Error("the claim of an earlier set of the name is touched")
	}
}

func TestRollingUpdateEndsAndNeverTakesTwo(t *testing.T) {
	s := set(5)
	pods := map[int]*corev1.Pod{}
	for i := range 5 {
		pods[i] = pod(s, "a", i, ready)
	}
	for step := 0; ; step++ {
		var have []*corev1.Pod
		for _, p := range pods {
			have = append(have, p)
		}
		p := statefulset.Decide(statefulset.Input{
			Set: s, Pods: have, Now: now, Claim: func(string) *corev1.PersistentVolumeClaim { return nil },
			Current: statefulset.Revision{Name: "a", Template: &s.Spec.Template}, Update: statefulset.Revision{Name: "b", Template: &s.Spec.Template},
		})
		if p.Status.CurrentRevision == "b" && p.Status.UpdatedReplicas == 5 {
			return
		}
		if step > 60 || len(p.Delete)+len(p.Create) > 1 {
			t.Fatalf("step %d: deletes %v, creates %v", step, podNames(p.Delete), podNames(p.Create))
		}
		s.Status = p.Status
		for _, x := range have { // what was made in the last step comes up
			if x.Status.Phase == corev1.PodPending {
				n := statefulset.Ordinal(s, x)
				pods[n] = pod(s, x.Labels[appsv1.StatefulSetRevisionLabel], n, ready)
			}
		}
		for _, x := range p.Delete {
			delete(pods, statefulset.Ordinal(s, x))
		}
		for _, x := range p.Create {
			n := statefulset.Ordinal(s, x)
			pods[n] = pod(s, x.Labels[appsv1.StatefulSetRevisionLabel], n, pending)
		}
	}
}

func TestOrdinalKnowsOnlyItsOwnNames(t *testing.T) {
	for name, want := range map[string]int{"web-0": 0, "web-17": 17, "web-": -1, "web-01": -1, "web-x": -1, "other-1": -1, "web": -1, fmt.Sprintf("web-%d", 1<<40): -1} {
		if got := statefulset.Ordinal(set(1), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}); got != want {
			t.Errorf("%s has ordinal %d, want %d", name, got, want)
		}
	}
}
