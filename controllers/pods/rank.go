package pods

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// SortForDeletion orders pods so that those whose loss costs least come
// first: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/
// (how to delete): not scheduled, not running, not ready, lower deletion
// cost, crowded node, ready for a shorter time, more restarts, younger. near
// counts the related pods of the same node.
func SortForDeletion(pods []*corev1.Pod, near map[string]int, now time.Time) {
	slices.SortStableFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(
			falseFirst(a.Spec.NodeName != "", b.Spec.NodeName != ""),
			phaseRank(a)-phaseRank(b),
			falseFirst(Ready(a), Ready(b)),
			cmp.Compare(deletionCost(a), deletionCost(b)),
			near[b.Spec.NodeName]-near[a.Spec.NodeName],
			cmp.Compare(ageClass(readySince(a), now), ageClass(readySince(b), now)),
			restarts(b)-restarts(a),
			cmp.Compare(ageClass(a.CreationTimestamp.Time, now), ageClass(b.CreationTimestamp.Time, now)),
			cmp.Compare(a.UID, b.UID),
		)
	})
}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func phaseRank(p *corev1.Pod) int {
	switch p.Status.Phase {
	case corev1.PodPending:
		return 0
	case corev1.PodUnknown:
		return 1
	default:
		return 2
	}
}

func deletionCost(p *corev1.Pod) int32 {
	n, err := strconv.ParseInt(p.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0
	}
	return int32(n)
}

func readySince(p *corev1.Pod) time.Time {
	if c := Condition(p, corev1.PodReady); c != nil && c.Status == corev1.ConditionTrue {
		return c.LastTransitionTime.Time
	}
	return time.Time{}
}

// ageClass puts times of the same order of magnitude together, so that among
// equals the choice spreads instead of following seconds. Younger is lower.
func ageClass(t, now time.Time) int {
	age := now.Sub(t).Seconds()
	if t.IsZero() || age < 1 {
		return 0
	}
	return 1 + int(math.Log2(age))
}

func restarts(p *corev1.Pod) int {
	n := int32(0)
	for _, s := range p.Status.ContainerStatuses {
		n = max(n, s.RestartCount)
	}
	return int(n)
}
