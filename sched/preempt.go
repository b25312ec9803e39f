package sched

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"skein.dev/skein/sched/decide"
)

// makeRoom looks for pods of lower priority whose end would let pod run, keeps
// their room for it and starts their end. The decision is returned with what
// came of it.
func (r *round) makeRoom(ctx context.Context, pod *decide.Prepared, snap *decide.Snapshot, d decide.Decision) decide.Decision {
	if d.Blocked != "" || d.Nodes == 0 {
		return d
	}
	found := decide.Preempt(snap, pod, d, r.s.budgets())
	if found.Node == "" {
		d.Preemption = found.Message
		if found.Eligible {
			r.nominate(ctx, pod, "")
		}
		return d
	}
	r.nominate(ctx, pod, found.Node)
	for _, v := range found.Victims {
		if v.Object.DeletionTimestamp == nil {
			r.evict(ctx, pod.Object, v.Object, found.Node)
		}
	}
	r.mu.Lock()
	var lesser []*decide.Prepared
	for _, other := range r.cluster.NominatedOn(found.Node) {
		if other.Priority < pod.Priority {
			lesser = append(lesser, other)
		}
	}
	r.mu.Unlock()
	for _, other := range lesser { // the room they waited for is taken now
		r.nominate(ctx, other, "")
	}
	return d
}

// budgets are the disruption budgets as they are now.
func (s *Scheduler) budgets() []decide.Budget {
	all, err := s.disruption.List(labels.Everything())
	if err != nil { // a lister over a store never fails
		return nil
	}
	out := make([]decide.Budget, 0, len(all))
	for _, b := range all {
		sel, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil {
			continue
		}
		granted := map[string]bool{}
		for name := range b.Status.DisruptedPods {
			granted[name] = true
		}
		out = append(out, decide.Budget{Namespace: b.Namespace, Selector: sel, Allowed: b.Status.DisruptionsAllowed, Granted: granted})
	}
	return out
}

// nominate notes here and in the pod's status which node is kept for it; "":
// none any more.
func (r *round) nominate(ctx context.Context, pod *decide.Prepared, node string) {
	r.mu.Lock()
	had := r.cluster.Nominated(pod.Object.UID)
	if had == node {
		r.mu.Unlock()
		return
	}
	r.cluster.Nominate(pod, node)
	r.mu.Unlock()
	r.beside(ctx, func() {
		err := r.patchStatus(ctx, pod.Object, map[string]any{"nominatedNodeName": node})
		if err != nil && ctx.Err() == nil {
			r.s.cfg.Kit.Log.WarnContext(ctx, "writing the nominated node failed", "pod", name(pod.Object), "err", err)
		}
	})
}

// evict ends a pod for one of higher priority, and says so in its status
// first: a Job need not count it as a failure.
func (r *round) evict(ctx context.Context, pod, victim *corev1.Pod, node string) {
	r.beside(ctx, func() {
		kit := &r.s.cfg.Kit
		err := r.patchStatus(ctx, victim, map[string]any{"conditions": []any{corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler,
			Message:            r.s.cfg.Name + ": preempting to accommodate a higher priority pod",
			LastTransitionTime: metav1.Now(), ObservedGeneration: victim.Generation,
		}}})
		if err == nil {
			call, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			err = kit.Client.CoreV1().Pods(victim.Namespace).Delete(call, victim.Name, metav1.DeleteOptions{
				Preconditions: &metav1.Preconditions{UID: &victim.UID},
			})
		}
		if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
			kit.Log.WarnContext(ctx, "preempting failed", "pod", name(victim), "err", err)
			return
		}
		kit.Log.InfoContext(ctx, "pod preempted", "pod", name(victim), "for", name(pod), "node", node)
		kit.Recorder.Eventf(victim, pod, corev1.EventTypeNormal, "Preempted", "Preempting", "Preempted by pod %v on node %v", pod.UID, node)
	})
}

// beside does what must not hold the loop up.
func (r *round) beside(ctx context.Context, do func()) {
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	r.binds.Go(func() {
		defer func() { <-r.slots }()
		do()
	})
}

func (r *round) patchStatus(ctx context.Context, pod *corev1.Pod, status map[string]any) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = r.s.cfg.Kit.Client.CoreV1().Pods(pod.Namespace).Patch(call, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("patch status: %w", err)
	}
	return nil
}
