package deployment

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons of the Progressing and Available conditions, in upstream's words.
const (
	reasonNewCreated   = "NewReplicaSetCreated"
	reasonUpdated      = "ReplicaSetUpdated"
	reasonAvailable    = "NewReplicaSetAvailable"
	reasonTimedOut     = "ProgressDeadlineExceeded"
	reasonPaused       = "DeploymentPaused"
	reasonResumed      = "DeploymentResumed"
	reasonMinimum      = "MinimumReplicasAvailable"
	reasonBelowMinimum = "MinimumReplicasUnavailable"
	unlimitedProgress  = int32(1<<31 - 1)
	minimumYes         = "Deployment has minimum availability."
	minimumNo          = "Deployment does not have minimum availability."
)

// status counts what the sets report (as observed, before this plan).
func (r *rollout) status(observed []*appsv1.ReplicaSet, now time.Time) appsv1.DeploymentStatus {
	if observed == nil {
		observed = r.all
	}
	s := *r.d.Status.DeepCopy()
	s.ObservedGeneration = r.d.Generation
	s.Replicas = sum(observed, func(s *appsv1.ReplicaSet) int32 { return s.Status.Replicas })
	s.ReadyReplicas = sum(observed, func(s *appsv1.ReplicaSet) int32 { return s.Status.ReadyReplicas })
	s.AvailableReplicas = sum(observed, available)
	s.UnavailableReplicas = max(0, sum(r.all, size)-s.AvailableReplicas)
	s.UpdatedReplicas = 0
	s.TerminatingReplicas = terminating(observed)
	if r.fresh != nil && !r.created {
		s.UpdatedReplicas = r.fresh.Status.Replicas
	}
	_, unavailable := r.bounds()
	c := appsv1.DeploymentCondition{
		Type: appsv1.DeploymentAvailable, Status: corev1.ConditionFalse, Reason: reasonBelowMinimum, Message: minimumNo,
	}
	if s.AvailableReplicas >= r.desired()-unavailable {
		c.Status, c.Reason, c.Message = corev1.ConditionTrue, reasonMinimum, minimumYes
	}
	set(&s, c, now)
	r.failure(&s, observed, now)
	return s
}

func terminating(sets []*appsv1.ReplicaSet) *int32 {
	var n *int32
	for _, s := range sets {
		if s.Status.TerminatingReplicas == nil {
			continue
		}
		if n == nil {
			n = new(int32)
		}
		*n += *s.Status.TerminatingReplicas
	}
	return n
}

// failure copies ReplicaFailure from the sets, the new one's first.
func (r *rollout) failure(s *appsv1.DeploymentStatus, observed []*appsv1.ReplicaSet, now time.Time) {
	var found *appsv1.ReplicaSetCondition
	for _, set := range observed {
		for i := range set.Status.Conditions {
			if set.Status.Conditions[i].Type == appsv1.ReplicaSetReplicaFailure && (found == nil || (r.fresh != nil && set.UID == r.fresh.UID)) {
				found = &set.Status.Conditions[i]
			}
		}
	}
	if found == nil {
		drop(s, appsv1.DeploymentReplicaFailure)
		return
	}
	set(s, appsv1.DeploymentCondition{
		Type: appsv1.DeploymentReplicaFailure, Status: found.Status, Reason: found.Reason, Message: found.Message,
	}, now)
}

// complete reports that all pods are of the present template, available, and
// no others exist, as the deployment's status says.
func (r *rollout) complete() bool { return r.completeBy(&r.d.Status) }

func (r *rollout) completeBy(s *appsv1.DeploymentStatus) bool {
	return s.UpdatedReplicas == r.desired() && s.Replicas == r.desired() &&
		s.AvailableReplicas == r.desired() && s.ObservedGeneration >= r.d.Generation
}

// progress keeps the Progressing condition and returns when the deadline
// should be looked at again.
func (r *rollout) progress(s *appsv1.DeploymentStatus, now time.Time) time.Duration {
	have := condition(&r.d.Status, appsv1.DeploymentProgressing)
	limit := r.d.Spec.ProgressDeadlineSeconds
	if limit == nil || *limit == unlimitedProgress {
		drop(s, appsv1.DeploymentProgressing)
		return 0
	}
	c := appsv1.DeploymentCondition{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue}
	switch {
	case r.d.Spec.Paused:
		if have == nil || have.Reason != reasonPaused {
			c.Status, c.Reason, c.Message = corev1.ConditionUnknown, reasonPaused, "Deployment is paused"
			set(s, c, now)
		}
		return 0
	case have != nil && have.Reason == reasonPaused:
		c.Status, c.Reason, c.Message = corev1.ConditionUnknown, reasonResumed, "Deployment is resumed"
	case have != nil && have.Reason == reasonAvailable && s.Replicas == s.UpdatedReplicas && !r.created:
		return 0
	case r.created:
		c.Reason, c.Message = reasonNewCreated, fmt.Sprintf("Created new replica set %q", r.fresh.Name)
	case r.completeBy(s):
		c.Reason, c.Message = reasonAvailable, r.named("ReplicaSet %q has successfully progressed.", "Deployment %q has successfully progressed.")
	case have == nil || r.moved(s) || have.Reason == reasonAvailable: // the last: a rollout to a set that exists
		c.Reason, c.Message = reasonUpdated, r.named("ReplicaSet %q is progressing.", "Deployment %q is progressing.")
	case r.late(have, now):
		c.Status, c.Reason = corev1.ConditionFalse, reasonTimedOut
		c.Message = r.named("ReplicaSet %q has timed out progressing.", "Deployment %q has timed out progressing.")
		set(s, c, now)
		return 0
	default:
		return max(have.LastUpdateTime.Add(r.deadline()).Sub(now), 0) + time.Second
	}
	touch(s, c, now)
	if c.Reason == reasonAvailable {
		return 0
	}
	return r.deadline() + time.Second
}

func (r *rollout) deadline() time.Duration {
	return time.Duration(*r.d.Spec.ProgressDeadlineSeconds) * time.Second
}

func (r *rollout) named(set, deployment string) string {
	if r.fresh != nil {
		return fmt.Sprintf(set, r.fresh.Name)
	}
	return fmt.Sprintf(deployment, r.d.Name)
}

// moved reports any step forward since the status that is stored.
func (r *rollout) moved(s *appsv1.DeploymentStatus) bool {
	was := &r.d.Status
	return s.UpdatedReplicas > was.UpdatedReplicas ||
		s.Replicas-s.UpdatedReplicas < was.Replicas-was.UpdatedReplicas ||
		s.ReadyReplicas > was.ReadyReplicas || s.AvailableReplicas > was.AvailableReplicas
}

func (r *rollout) late(have *appsv1.DeploymentCondition, now time.Time) bool {
	switch have.Reason {
	case reasonAvailable:
		return false
	case reasonTimedOut:
		return true
	}
	return now.After(have.LastUpdateTime.Add(r.deadline()))
}

func condition(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			return &s.Conditions[i]
		}
	}
	return nil
}

// set writes c unless status and reason are what they were.
func set(s *appsv1.DeploymentStatus, c appsv1.DeploymentCondition, now time.Time) {
	if have := condition(s, c.Type); have != nil && have.Status == c.Status && have.Reason == c.Reason {
		return
	}
	touch(s, c, now)
}

// touch writes c with a new update time; the transition time moves only with
// the status.
func touch(s *appsv1.DeploymentStatus, c appsv1.DeploymentCondition, now time.Time) {
	c.LastUpdateTime, c.LastTransitionTime = metav1.NewTime(now), metav1.NewTime(now)
	if have := condition(s, c.Type); have != nil {
		if have.Status == c.Status {
			c.LastTransitionTime = have.LastTransitionTime
		}
		*have = c
		return
	}
	s.Conditions = append(s.Conditions, c)
}

func drop(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) {
	out := s.Conditions[:0]
	for _, c := range s.Conditions {
		if c.Type != t {
			out = append(out, c)
		}
	}
	s.Conditions = out
}
