package job

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"skein.dev/skein/controllers/pods"
)

// Pauses before a failed pod is replaced, doubled by each failure.
const (
	pauseFirst = 10 * time.Second
	pauseMax   = 10 * time.Minute
)

// endedAt is when a pod ended, as well as it can be known.
func endedAt(p *corev1.Pod) time.Time {
	if t := containersEnded(p); !t.IsZero() {
		return t
	}
	if c := pods.Condition(p, corev1.PodReady); c != nil && c.Status == corev1.ConditionFalse && !c.LastTransitionTime.IsZero() {
		return c.LastTransitionTime.Time
	}
	if p.DeletionTimestamp != nil {
		grace := time.Duration(0)
		if p.DeletionGracePeriodSeconds != nil {
			grace = time.Duration(*p.DeletionGracePeriodSeconds) * time.Second
		}
		return p.DeletionTimestamp.Add(-grace)
	}
	return p.CreationTimestamp.Time
}

// containersEnded is when the last container ended; zero: one has not, or
// none is known.
func containersEnded(p *corev1.Pod) time.Time {
	sidecar := map[string]bool{}
	for _, c := range p.Spec.InitContainers {
		sidecar[c.Name] = c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
	}
	var last time.Time
	look := func(s *corev1.ContainerStatus) bool {
		if s.State.Terminated == nil || s.State.Terminated.FinishedAt.IsZero() {
			return false
		}
		if t := s.State.Terminated.FinishedAt.Time; t.After(last) {
			last = t
		}
		return true
	}
	for i := range p.Status.ContainerStatuses {
		if !look(&p.Status.ContainerStatuses[i]) {
			return time.Time{}
		}
	}
	for i := range p.Status.InitContainerStatuses {
		if s := &p.Status.InitContainerStatuses[i]; sidecar[s.Name] && !look(s) {
			return time.Time{}
		}
	}
	return last
}

// pause is how much longer to wait after failures in a row, the last at t.
func pause(failures int, t, now time.Time) time.Duration {
	if failures == 0 {
		return 0
	}
	d := pauseFirst
	for range failures - 1 {
		if d *= 2; d >= pauseMax {
			d = pauseMax
			break
		}
	}
	return max(0, d-now.Sub(t))
}

// jobPause is the pause that the pods which still exist ask for: those that
// failed after the last success.
func jobPause(job *batchv1.Job, all []*corev1.Pod, now time.Time) time.Duration {
	var success, failure time.Time
	for _, p := range all {
		if p.Status.Phase == corev1.PodSucceeded && endedAt(p).After(success) {
			success = endedAt(p)
		}
	}
	n := 0
	for _, p := range all {
		if !failed(job, p) {
			continue
		}
		if t := endedAt(p); t.After(success) {
			n++
			if t.After(failure) {
				failure = t
			}
		}
	}
	return pause(n, failure, now)
}

// indexPause is the pause after a failed pod of an index.
func indexPause(last *corev1.Pod, now time.Time) time.Duration {
	if last == nil {
		return 0
	}
	return pause(failures(last)+1, endedAt(last), now)
}

// failures are all of an index up to the pod's creation.
func failures(p *corev1.Pod) int {
	return counted(p, batchv1.JobIndexFailureCountAnnotation) + counted(p, batchv1.JobIndexIgnoredFailureCountAnnotation)
}
