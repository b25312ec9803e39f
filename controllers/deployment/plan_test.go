package deployment_test

import (
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"skein.dev/skein/controllers/deployment"
)

func deploy(replicas int32, image string, surge, unavailable int) *appsv1.Deployment {
	limit, deadline := int32(1), int32(600)
	s, u := intstr.FromInt(surge), intstr.FromInt(unavailable)
	l := map[string]string{"app": "a"}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "d", Namespace: "default", UID: "d"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, RevisionHistoryLimit: &limit, ProgressDeadlineSeconds: &deadline, Selector: &metav1.LabelSelector{MatchLabels: l},
			Strategy: appsv1.DeploymentStrategy{
				Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &s, MaxUnavailable: &u},
			},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}},
			},
		},
	}
}

// world applies plans and lets pods come up and break.
type world struct {
	d    *appsv1.Deployment
	sets []*appsv1.ReplicaSet
	now  time.Time
}

func (w *world) step() deployment.Plan {
	w.now = w.now.Add(time.Second)
	p := deployment.Decide(w.d, w.sets, w.oldRun(), w.now)
	for _, u := range p.Updates {
		for i, s := range w.sets {
			if s.UID == u.Set.UID {
				w.sets[i] = u.Set
			}
		}
	}
	if p.Create != nil {
		made := p.Create.DeepCopy()
		made.UID = types.UID(fmt.Sprintf("rs-%d", w.now.Unix()))
		w.sets = append(w.sets, made)
	}
	for _, gone := range p.Delete {
		for i, s := range w.sets {
			if s.UID == gone.UID {
				w.sets = append(w.sets[:i:i], w.sets[i+1:]...)
				break
			}
		}
	}
	w.d = w.d.DeepCopy()
	w.d.Status = p.Status
	return p
}

func (w *world) oldRun() bool {
	for _, s := range w.sets {
		if s.Spec.Template.Spec.Containers[0].Image != w.d.Spec.Template.Spec.Containers[0].Image && s.Status.Replicas > 0 {
			return true
		}
	}
	return false
}

// pods makes each set have the pods it asks for, of which up to n become
// available in this step.
func (w *world) pods(n int32) {
	for i := range w.sets {
		s := w.sets[i].DeepCopy()
		want := *s.Spec.Replicas
		s.Status.Replicas = want
		s.Status.AvailableReplicas = min(want, s.Status.AvailableReplicas+n)
		s.Status.ReadyReplicas = s.Status.AvailableReplicas
		w.sets[i] = s
	}
}

func (w *world) sum(f func(*appsv1.ReplicaSet) int32) int32 {
	n := int32(0)
	for _, s := range w.sets {
		n += f(s)
	}
	return n
}

func asked(s *appsv1.ReplicaSet) int32     { return *s.Spec.Replicas }
func available(s *appsv1.ReplicaSet) int32 { return s.Status.AvailableReplicas }

func (w *world) settle(t interface{ Fatalf(string, ...any) }) {
	for range 200 {
		w.step()
		w.pods(2)
		if w.d.Status.UpdatedReplicas == *w.d.Spec.Replicas && w.d.Status.Replicas == *w.d.Spec.Replicas && w.d.Status.AvailableReplicas == *w.d.Spec.Replicas {
			w.step() // the history is cleaned once complete
			return
		}
	}
	t.Fatalf("the rollout does not end: %+v", w.d.Status)
}

// TestRollingUpdateKeepsItsBounds walks random rollouts pod by pod.
func TestRollingUpdateKeepsItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		replicas := int32(rapid.IntRange(1, 12).Draw(t, "replicas"))
		surge, unavailable := rapid.IntRange(0, 5).Draw(t, "surge"), rapid.IntRange(0, 5).Draw(t, "unavailable")
		w := &world{d: deploy(replicas, "a:1", surge, unavailable), now: time.Unix(1000, 0)}
		w.settle(t)
		w.d.Spec.Template.Spec.Containers[0].Image = "a:2"
		if surge == 0 && unavailable == 0 {
			unavailable = 1
		}
		least := replicas - min(int32(unavailable), replicas)
		for range 300 {
			w.step()
			if got := w.sum(asked); got > replicas+int32(surge) {
				t.Fatalf("%d pods asked for, with %d replicas and surge %d", got, replicas, surge)
			}
			kept := int32(0) // available pods that nobody gave up
			for _, s := range w.sets {
				kept += min(asked(s), available(s))
			}
			if kept < least {
				t.Fatalf("%d available pods kept, want at least %d", kept, least)
			}
			w.pods(int32(rapid.IntRange(0, 2).Draw(t, "up")))
			if w.d.Status.UpdatedReplicas == replicas && w.d.Status.AvailableReplicas == replicas && w.d.Status.Replicas == replicas {
				return
			}
		}
		w.settle(t)
	})
}

func TestBrokenRolloutKeepsTheOldPods(t *testing.T) {
	w := &world{d: deploy(4, "a:1", 1, 0), now: time.Unix(1000, 0)}
	w.settle(t)
	w.d.Spec.Template.Spec.Containers[0].Image = "broken"
	for range 20 {
		w.step()
		w.pods(0)
	}
	if got := w.sum(available); got != 4 {
		t.Errorf("%d pods are available, want 4", got)
	}
	w.now = w.now.Add(11 * time.Minute)
	w.step()
	for _, c := range w.d.Status.Conditions {
		if c.Type == appsv1.DeploymentProgressing && (c.Status != corev1.ConditionFalse || c.Reason != "ProgressDeadlineExceeded") {
			t.Errorf("progressing is %s %s, want the deadline exceeded", c.Status, c.Reason)
		}
	}
	w.d.Spec.Template.Spec.Containers[0].Image = "a:1"
	w.settle(t)
}

func TestHistoryIsLimitedAndRevisionsGrow(t *testing.T) {
	w := &world{d: deploy(2, "a:1", 1, 1), now: time.Unix(1000, 0)}
	for i := 1; i <= 4; i++ {
		w.d.Spec.Template.Spec.Containers[0].Image = fmt.Sprintf("a:%d", i)
		w.settle(t)
	}
	if len(w.sets) != 2 {
		t.Errorf("%d sets are kept, want the present one and one old", len(w.sets))
	}
	w.d.Spec.Template.Spec.Containers[0].Image = "a:3"
	w.settle(t)
	for _, s := range w.sets {
		if s.Spec.Template.Spec.Containers[0].Image == "a:3" && s.Annotations[deployment.RevisionAnnotation] != "5" {
			t.Errorf("after the rollback the revision is %s, want 5", s.Annotations[deployment.RevisionAnnotation])
		}
	}
}

func TestScalingDuringARolloutIsProportional(t *testing.T) {
	w := &world{d: deploy(10, "a:1", 3, 2), now: time.Unix(1000, 0)}
	w.settle(t)
	w.d.Spec.Template.Spec.Containers[0].Image = "broken"
	for range 5 {
		w.step()
		w.pods(0)
	}
	before := map[types.UID]int32{}
	for _, s := range w.sets {
		before[s.UID] = asked(s)
	}
	n := int32(15)
	w.d.Spec.Replicas = &n
	w.step()
	if got := w.sum(asked); got != 18 {
		t.Errorf("%d pods asked for, want 15 and a surge of 3", got)
	}
	for _, s := range w.sets {
		if asked(s) <= before[s.UID] {
			t.Errorf("set of %s went from %d to %d", s.Spec.Template.Spec.Containers[0].Image, before[s.UID], asked(s))
		}
	}
}

func TestRecreateStopsTheOldBeforeTheNew(t *testing.T) {
	w := &world{d: deploy(3, "a:1", 0, 0), now: time.Unix(1000, 0)}
	w.d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	w.settle(t)
	w.d.Spec.Template.Spec.Containers[0].Image = "a:2"
	p := w.step()
	if p.Create != nil || w.sum(asked) != 0 {
		t.Fatalf("the first step creates %v and leaves %d", p.Create, w.sum(asked))
	}
	if p := w.step(); p.Create != nil {
		t.Error("the new set is made while old pods run")
	}
	w.settle(t)
}

func TestPausedDeploymentScalesButDoesNotRollOut(t *testing.T) {
	w := &world{d: deploy(2, "a:1", 1, 1), now: time.Unix(1000, 0)}
	w.settle(t)
	w.d.Spec.Paused = true
	w.d.Spec.Template.Spec.Containers[0].Image = "a:2"
	n := int32(4)
	w.d.Spec.Replicas = &n
	for range 3 {
		w.step()
		w.pods(4)
	}
	if len(w.sets) != 1 || asked(w.sets[0]) != 4 {
		t.Errorf("%d sets, the first asks for %d", len(w.sets), asked(w.sets[0]))
	}
	w.d.Spec.Paused = false
	w.settle(t)
}
