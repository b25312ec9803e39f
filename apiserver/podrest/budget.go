package podrest

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/storage"
	storeerr "k8s.io/apiserver/pkg/storage/errors"
)

const (
	// maxDisrupted bounds the evictions of one budget that its controller has
	// not seen yet.
	maxDisrupted = 2000
	// busySeconds is when to ask again a budget that is not counted yet.
	busySeconds = 10

	severalBudgets = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
)

// spend asks the disruption budget of a pod, takes one disruption from it and
// returns nil if the pod may go. A pod that serves nobody costs nothing: one
// that has ended, is going, or was never ready, as far as its budget's
// unhealthyPodEvictionPolicy says so (KEP-3017).
func spend(ctx context.Context, budgets *genericregistry.Store, pod *corev1.Pod, dryRun bool) error {
	if budgets == nil || free(pod) {
		return nil
	}
	budget, err := budgetOf(ctx, budgets, pod)
	if budget == nil || err != nil {
		return err
	}
	if !ready(pod) {
		always := budget.Spec.UnhealthyPodEvictionPolicy != nil && *budget.Spec.UnhealthyPodEvictionPolicy == policyv1.AlwaysAllow
		healthy := budget.Status.CurrentHealthy >= budget.Status.DesiredHealthy && budget.Status.DesiredHealthy > 0
		if always || healthy {
			return nil
		}
	}
	key, err := budgets.KeyFunc(ctx, budget.Name)
	if err != nil {
		return err
	}
	update := storage.SimpleUpdate(func(obj runtime.Object) (runtime.Object, error) {
		b, ok := obj.(*policyv1.PodDisruptionBudget)
		if !ok {
			return nil, fmt.Errorf("unexpected object: %T", obj)
		}
		return b, take(b, pod.Name)
	})
	err = budgets.Storage.GuaranteedUpdate(ctx, key, &policyv1.PodDisruptionBudget{}, false, nil, update, dryRun, nil)
	return storeerr.InterpretUpdateError(err, budgets.DefaultQualifiedResource, budget.Name)
}

// free reports whether no budget protects the pod any more, or yet.
func free(p *corev1.Pod) bool {
	switch p.Status.Phase {
	case corev1.PodSucceeded, corev1.PodFailed, corev1.PodPending:
		return true
	default:
		return p.DeletionTimestamp != nil
	}
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// budgetOf returns the budget whose selector chooses the pod, nil if none does.
func budgetOf(ctx context.Context, budgets *genericregistry.Store, pod *corev1.Pod) (*policyv1.PodDisruptionBudget, error) {
	list, err := budgets.List(ctx, nil)
	if err != nil {
		return nil, err
	}
	var found *policyv1.PodDisruptionBudget
	err = meta.EachListItem(list, func(obj runtime.Object) error {
		b, ok := obj.(*policyv1.PodDisruptionBudget)
		if !ok {
			return fmt.Errorf("unexpected object: %T", obj)
		}
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil || !selector.Matches(labels.Set(pod.Labels)) {
			return nil //nolint:nilerr // a selector that cannot be read chooses nothing
		}
		if found != nil {
			return apierrors.NewInternalError(errors.New(severalBudgets)) //nolint:staticcheck // upstream's words
		}
		found = b.DeepCopy()
		return nil
	})
	return found, err
}

// take books the disruption of one pod, or says why it may not be.
func take(b *policyv1.PodDisruptionBudget, pod string) error {
	st := &b.Status
	refuse := func(format string, args ...any) error {
		return apierrors.NewForbidden(policyv1.Resource("poddisruptionbudget"), b.Name, fmt.Errorf(format, args...))
	}
	switch {
	case st.ObservedGeneration < b.Generation:
		return later(busySeconds, fmt.Sprintf("The disruption budget %s is still being processed by the server.", b.Name))
	case st.DisruptionsAllowed < 0:
		return refuse("pdb disruptions allowed is negative")
	case len(st.DisruptedPods) > maxDisrupted:
		return refuse("DisruptedPods map too big - too many evictions not confirmed by PDB controller")
	case st.DisruptionsAllowed == 0:
		return later(0, fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", b.Name, st.DesiredHealthy, st.CurrentHealthy))
	}
	st.DisruptionsAllowed--
	if st.DisruptionsAllowed == 0 {
		meta.SetStatusCondition(&st.Conditions, metav1.Condition{
			Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.InsufficientPodsReason,
			ObservedGeneration: st.ObservedGeneration,
		})
	}
	if st.DisruptedPods == nil {
		st.DisruptedPods = map[string]metav1.Time{}
	}
	st.DisruptedPods[pod] = metav1.Now()
	return nil
}

// later is the answer of a budget that has nothing to spend now.
func later(seconds int, why string) error {
	err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", seconds)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: why})
	return err
}
