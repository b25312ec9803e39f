package nodelifecycle

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/controllers/pods"
)

// Verdict is what is to be done about a pod of a node.
type Verdict int

// The verdicts.
const (
	Keep   Verdict = iota
	Evict          // delete with its own grace period
	Remove         // delete at once: nobody is there to confirm
)

// Judge decides about a pod of a node with the given taints; after is when to
// judge again, 0: never.
func Judge(pod *corev1.Pod, taints []corev1.Taint, health Health, now time.Time) (v Verdict, after time.Duration) {
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return Keep, 0
	}
	lost := health == Lost && executes(taints, corev1.TaintNodeUnreachable)
	if pod.DeletionTimestamp != nil {
		if !lost || Unique(pod) {
			return Keep, 0
		}
		if left := pod.DeletionTimestamp.Sub(now); left > 0 {
			return Keep, left
		}
		return Remove, 0
	}
	due, ever := evictAt(pod, taints, now)
	if !ever {
		return Keep, 0
	}
	if due.After(now) {
		return Keep, due.Sub(now)
	}
	switch {
	case !lost:
		return Evict, 0
	case Unique(pod):
		return Keep, 0
	default:
		return Remove, 0
	}
}

// Unique reports whether the pod must not run twice: it keeps its name and
// its volumes, so a second one may only start after the first has surely
// ended. Fencing will tell; until then such a pod waits for its node.
func Unique(pod *corev1.Pod) bool {
	ref := metav1.GetControllerOfNoCopy(pod)
	return ref != nil && ref.Kind == "StatefulSet"
}

// evictAt is when the pod's patience with the node's NoExecute taints ends.
func evictAt(pod *corev1.Pod, taints []corev1.Taint, now time.Time) (due time.Time, ever bool) {
	for i := range taints {
		t := &taints[i]
		if t.Effect != corev1.TaintEffectNoExecute {
			continue
		}
		since := now
		if t.TimeAdded != nil {
			since = t.TimeAdded.Time
		}
		tolerated, seconds := tolerates(pod, t)
		if tolerated && seconds == nil {
			continue
		}
		end := since
		if tolerated && *seconds > 0 {
			end = since.Add(time.Duration(*seconds) * time.Second)
		}
		if !ever || end.Before(due) {
			due, ever = end, true
		}
	}
	return due, ever
}

// tolerates reports whether the pod bears the taint and for how long: nil is
// for ever. The shortest of several matching tolerations counts.
func tolerates(pod *corev1.Pod, t *corev1.Taint) (ok bool, seconds *int64) {
	for i := range pod.Spec.Tolerations {
		tol := &pod.Spec.Tolerations[i]
		if !matches(tol, t) {
			continue
		}
		if tol.TolerationSeconds != nil && (seconds == nil || *tol.TolerationSeconds < *seconds) {
			seconds = tol.TolerationSeconds
		}
		ok = true
	}
	return ok, seconds
}

func matches(tol *corev1.Toleration, t *corev1.Taint) bool {
	if (tol.Effect != "" && tol.Effect != t.Effect) || (tol.Key != "" && tol.Key != t.Key) {
		return false
	}
	switch tol.Operator {
	case "", corev1.TolerationOpEqual:
		return tol.Value == t.Value
	case corev1.TolerationOpExists:
		return true
	default:
		return false
	}
}

func (c *Controller) evict(ctx context.Context, node *corev1.Node, health Health, now time.Time) (time.Duration, error) {
	var next time.Duration
	for _, pod := range c.podsOn(node.Name) {
		v, after := Judge(pod, node.Spec.Taints, health, now)
		next = soonest(next, after)
		if v == Keep {
			continue
		}
		if err := c.remove(ctx, pod, v); err != nil {
			return 0, err
		}
	}
	return next, nil
}

func (c *Controller) remove(ctx context.Context, pod *corev1.Pod, v Verdict) error {
	opts := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}}
	if v == Remove {
		opts.GracePeriodSeconds = new(int64)
	}
	c.kit.Recorder.Eventf(pod, nil, corev1.EventTypeNormal, "TaintManagerEviction", "TaintManagerEviction",
		"Marking for deletion Pod %s/%s", pod.Namespace, pod.Name)
	err := c.kit.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, opts)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("evict pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// markPods says of a lost node's pods that they are not ready, so that
// services drop them before they are evicted.
func (c *Controller) markPods(ctx context.Context, node *corev1.Node) error {
	for _, pod := range c.podsOn(node.Name) {
		if !pods.Ready(pod) || pods.Finished(pod) {
			continue
		}
		up := pod.DeepCopy()
		for i := range up.Status.Conditions {
			cond := &up.Status.Conditions[i]
			if cond.Type == corev1.PodReady {
				cond.Status, cond.LastTransitionTime = corev1.ConditionFalse, metav1.Now()
				cond.Reason, cond.Message = "NodeLost", fmt.Sprintf("Node %s which was running the pod is unresponsive", node.Name)
			}
		}
		_, err := c.kit.Client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, up, metav1.UpdateOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("mark pod %s/%s not ready: %w", pod.Namespace, pod.Name, err)
		}
		c.kit.Recorder.Eventf(pod, nil, corev1.EventTypeWarning, "NodeNotReady", "NodeNotReady", "Node is not ready")
	}
	return nil
}
