package lifecycle_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"skein.dev/skein/kubelet/lifecycle"
)

func TestTheEndOfAContainerIsHeldBackOnlyWhileItIsReplaced(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	was := lifecycle.Hash(&corev1.Container{Name: "a", Image: "i"})
	for _, c := range []struct {
		rule   string
		image  string
		ended  time.Duration // ago
		failed bool
		want   bool
	}{
		{rule: "a new image, a moment ago", image: "other", ended: 100 * time.Millisecond, want: true},
		{rule: "a new image, but its start takes long", image: "other", ended: 2 * time.Second},
		{rule: "a new image that cannot be had", image: "other", ended: 100 * time.Millisecond, failed: true},
		{rule: "a container that crashed", image: "i", ended: 100 * time.Millisecond},
	} {
		t.Run(c.rule, func(t *testing.T) {
			pod := &corev1.Pod{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{{Name: "a", Image: c.image}}}}
			m := lifecycle.New()
			if c.failed {
				m.Failed(lifecycle.Failure{Action: lifecycle.Action{Op: lifecycle.Start, Name: "a"}, Reason: lifecycle.ReasonErrImagePull}, now)
			}
			p := m.Plan(lifecycle.Input{
				Pod: pod, Runtime: "test", Sandboxes: []lifecycle.Sandbox{{ID: "s", Ready: true}},
				Containers: []lifecycle.Container{{
					ID: "c", Name: "a", SandboxID: "s", State: lifecycle.Exited, Hash: was, ExitCode: 143, FinishedAt: now.Add(-c.ended),
				}},
			}, now)
			if got := now.Before(p.Hold); got != c.want {
				t.Errorf("held back: %v, want %v", got, c.want)
			}
			if c.want && (p.Wake.IsZero() || p.Wake.After(p.Hold)) {
				t.Errorf("nobody looks again when it is told: wake %v, hold %v", p.Wake, p.Hold)
			}
		})
	}
}
