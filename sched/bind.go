package sched

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/sched/decide"
)

// callTimeout bounds one request to the API.
const callTimeout = 15 * time.Second

// bind tells the API where the pod goes. The pod counts on its node already;
// if the binding fails it is taken back.
func (r *round) bind(ctx context.Context, it *item, pod *corev1.Pod, node string) {
	kit := &r.s.cfg.Kit
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := kit.Client.CoreV1().Pods(pod.Namespace).Bind(call, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
	if err == nil {
		r.mu.Lock()
		r.queue.done(it)
		r.mu.Unlock()
		kit.Recorder.Eventf(pod, nil, corev1.EventTypeNormal, "Scheduled", "Binding",
			"Successfully assigned %v/%v to %v", pod.Namespace, pod.Name, node)
		return
	}
	if ctx.Err() != nil {
		return
	}
	r.takeBack(ctx, it, pod, node, err)
}

// takeBack undoes an assumption after a failed binding. A binding that failed
// for us may have succeeded all the same, so the API is asked.
func (r *round) takeBack(ctx context.Context, it *item, pod *corev1.Pod, node string, cause error) {
	kit := &r.s.cfg.Kit
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	live, err := kit.Client.CoreV1().Pods(pod.Namespace).Get(call, pod.Name, metav1.GetOptions{})
	gone := apierrors.IsNotFound(err) || (err == nil && (live.UID != pod.UID || live.DeletionTimestamp != nil))
	bound := err == nil && live.UID == pod.UID && live.Spec.NodeName != ""
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case bound && live.Spec.NodeName == node, !r.assumed[pod.UID]: // done, or the informer has settled it
		r.queue.done(it)
		return
	case bound || gone:
		r.queue.done(it)
	default:
		kit.Log.WarnContext(ctx, "binding failed", "pod", name(pod), "node", node, "err", cause)
		kit.Recorder.Eventf(pod, nil, corev1.EventTypeWarning, "FailedScheduling", "Scheduling", "binding rejected: %v", cause)
		r.queue.retry(it, time.Now())
	}
	delete(r.assumed, pod.UID)
	r.cluster.RemovePod(pod.UID)
	r.queue.happened(podGone, time.Now())
	r.nudge()
}

// refused tells the user why the pod waits and lets it wait.
func (r *round) refused(ctx context.Context, it *item, pod *decide.Prepared, d decide.Decision) {
	if message := d.Message(); message != it.message {
		it.message = message
		r.tell(ctx, pod.Object, message)
	}
	rules := d.Rules()
	if d.Blocked != "" {
		rules = []string{decide.RuleVolumes}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue.refuse(it, rules, time.Now())
}

// tell reports a refusal beside the loop, which must not wait for the API.
func (r *round) tell(ctx context.Context, pod *corev1.Pod, message string) {
	r.beside(ctx, func() {
		r.s.cfg.Kit.Recorder.Eventf(pod, nil, corev1.EventTypeWarning, "FailedScheduling", "Scheduling", "%s", message)
		if err := r.condition(ctx, pod, message); err != nil && ctx.Err() == nil {
			r.s.cfg.Kit.Log.WarnContext(ctx, "writing the pod's condition failed", "pod", name(pod), "err", err)
		}
	})
}

// condition writes PodScheduled=False if the pod does not say so already.
func (r *round) condition(ctx context.Context, pod *corev1.Pod, message string) error {
	c := corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
		Message: message, ObservedGeneration: pod.Generation, LastTransitionTime: metav1.Now(),
	}
	for _, have := range pod.Status.Conditions {
		if have.Type != c.Type {
			continue
		}
		if have.Status == c.Status && have.Reason == c.Reason && have.Message == c.Message {
			return nil
		}
		if have.Status == c.Status {
			c.LastTransitionTime = have.LastTransitionTime
		}
	}
	return r.patchStatus(ctx, pod, map[string]any{"conditions": []any{c}})
}
