package replicaset

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"skein.dev/skein/controllers/pods"
)

// Status is what rs should report of its pods, and after how long a ready
// pod becomes available if nothing else happens.
func Status(rs *appsv1.ReplicaSet, active, terminating []*corev1.Pod, now time.Time, failure error) (appsv1.ReplicaSetStatus, time.Duration) {
	s := appsv1.ReplicaSetStatus{
		Replicas:            int32(len(active)),
		ObservedGeneration:  rs.Generation,
		Conditions:          rs.Status.Conditions,
		TerminatingReplicas: new(int32(len(terminating))),
	}
	template := labels.SelectorFromSet(rs.Spec.Template.Labels)
	minReady := time.Duration(rs.Spec.MinReadySeconds) * time.Second
	var after time.Duration
	for _, p := range active {
		if template.Matches(labels.Set(p.Labels)) {
			s.FullyLabeledReplicas++
		}
		if !pods.Ready(p) {
			continue
		}
		s.ReadyReplicas++
		ok, missing := pods.Available(p, minReady, now)
		if ok {
			s.AvailableReplicas++
		} else if after == 0 || missing < after {
			after = missing
		}
	}
	s.Conditions = failureCondition(s.Conditions, len(active)-int(wanted(rs)), now, failure)
	return s, after
}

// failureCondition sets or removes ReplicaFailure; the input stays untouched.
func failureCondition(have []appsv1.ReplicaSetCondition, diff int, now time.Time, failure error) []appsv1.ReplicaSetCondition {
	var out []appsv1.ReplicaSetCondition
	found := false
	for _, c := range have {
		if c.Type == appsv1.ReplicaSetReplicaFailure {
			if failure == nil {
				continue
			}
			found = true
		}
		out = append(out, c)
	}
	if failure == nil || found {
		return out
	}
	reason := "FailedCreate"
	if diff > 0 {
		reason = "FailedDelete"
	}
	return append(out, appsv1.ReplicaSetCondition{
		Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue,
		LastTransitionTime: metav1.NewTime(now), Reason: reason, Message: failure.Error(),
	})
}
