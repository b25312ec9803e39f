package disruption

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	pdbhelper "k8s.io/component-helpers/apps/poddisruptionbudget"

	"skein.dev/skein/controllers/pods"
)

// evictionPatience is how long a pod may take to be deleted after its eviction
// was granted, before it counts again.
const evictionPatience = 2 * time.Minute

// Scale answers how many pods the controller of a pod wants; an error means
// that it is not known.
type Scale func(ref *metav1.OwnerReference) (int32, error)

// Decide is what the budget's status should say of its pods, and when to look
// again; 0: when something changes.
func Decide(pdb *policyv1.PodDisruptionBudget, all []*corev1.Pod, scale Scale, now time.Time) (policyv1.PodDisruptionBudgetStatus, time.Duration, error) {
	expected, desired, err := bounds(pdb, all, scale)
	if err != nil {
		return policyv1.PodDisruptionBudgetStatus{}, 0, err
	}
	disrupted, after := disruptions(pdb, all, now)
	healthy := int32(0)
	for _, p := range all {
		if _, going := disrupted[p.Name]; !going && p.DeletionTimestamp == nil && pods.Ready(p) {
			healthy++
		}
	}
	allowed := max(0, healthy-desired)
	if expected <= 0 { // pods that are yet to come are safe until they have been counted
		allowed = 0
	}
	up := pdb.DeepCopy()
	up.Status = policyv1.PodDisruptionBudgetStatus{
		CurrentHealthy: healthy, DesiredHealthy: desired, ExpectedPods: expected, DisruptionsAllowed: allowed,
		DisruptedPods: disrupted, ObservedGeneration: pdb.Generation, Conditions: slices.Clone(pdb.Status.Conditions),
	}
	pdbhelper.UpdateDisruptionAllowedCondition(up)
	return up.Status, after, nil
}

// bounds are how many pods there should be and how many must be healthy.
func bounds(pdb *policyv1.PodDisruptionBudget, all []*corev1.Pod, scale Scale) (expected, desired int32, err error) {
	least, most := pdb.Spec.MinAvailable, pdb.Spec.MaxUnavailable
	if most == nil && least == nil {
		return 0, 0, nil
	}
	if most == nil && least.Type == intstr.Int {
		return int32(len(all)), least.IntVal, nil
	}
	wanted := map[types.UID]int32{}
	for _, p := range all {
		ref := metav1.GetControllerOfNoCopy(p)
		if ref == nil { // nobody replaces it: it has no share
			continue
		}
		if _, known := wanted[ref.UID]; known {
			continue
		}
		if wanted[ref.UID], err = scale(ref); err != nil {
			return 0, 0, fmt.Errorf("scale of pod %s: %w", p.Name, err)
		}
	}
	for _, n := range wanted {
		expected += n
	}
	if most != nil {
		n, err := intstr.GetScaledValueFromIntOrPercent(most, int(expected), true)
		if err != nil {
			return 0, 0, fmt.Errorf("read maxUnavailable: %w", err)
		}
		return expected, max(0, expected-int32(n)), nil
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(least, int(expected), true)
	if err != nil {
		return 0, 0, fmt.Errorf("read minAvailable: %w", err)
	}
	return expected, int32(n), nil
}

// disruptions are the granted evictions whose pods are not deleted yet.
func disruptions(pdb *policyv1.PodDisruptionBudget, all []*corev1.Pod, now time.Time) (map[string]metav1.Time, time.Duration) {
	out := map[string]metav1.Time{}
	var after time.Duration
	for _, p := range all {
		at, granted := pdb.Status.DisruptedPods[p.Name]
		if !granted || p.DeletionTimestamp != nil {
			continue
		}
		left := at.Add(evictionPatience).Sub(now)
		if left <= 0 {
			continue
		}
		out[p.Name] = at
		if after == 0 || left < after {
			after = left
		}
	}
	if len(out) == 0 {
		return nil, 0
	}
	return out, after
}

// Failed is the status of a budget whose pods cannot be counted: nothing may
// be disrupted.
func Failed(pdb *policyv1.PodDisruptionBudget, cause error, now time.Time) policyv1.PodDisruptionBudgetStatus {
	st := *pdb.Status.DeepCopy()
	st.DisruptionsAllowed, st.ObservedGeneration = 0, pdb.Generation
	c := metav1.Condition{
		Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.SyncFailedReason,
		Message: cause.Error(), ObservedGeneration: pdb.Generation, LastTransitionTime: metav1.NewTime(now),
	}
	i := slices.IndexFunc(st.Conditions, func(x metav1.Condition) bool { return x.Type == c.Type })
	if i < 0 {
		st.Conditions = append(st.Conditions, c)
		return st
	}
	if st.Conditions[i].Status == c.Status {
		c.LastTransitionTime = st.Conditions[i].LastTransitionTime
	}
	st.Conditions[i] = c
	return st
}
