package apiserver

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/resourcequota"
	sums "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	resourcehelper "k8s.io/component-helpers/resource"

	"skein.dev/skein/api/quota"
)

// quotaWorkers book usage at the same time, each of one namespace.
const quotaWorkers = 5

// newQuota is the plugin that books what a new object takes of its
// namespace's quotas, and refuses what exceeds them.
func newQuota(config io.Reader) (admission.Interface, error) {
	c, err := resourcequota.LoadConfiguration(config)
	if err != nil {
		return nil, err
	}
	return resourcequota.NewResourceQuota(c, quotaWorkers)
}

// quotaRules are how pods, services and claims are counted. Objects of other
// kinds count by number, for which the plugin needs no rule.
func quotaRules() sums.Configuration {
	ignored := map[schema.GroupResource]struct{}{
		corev1.Resource("bindings"): {}, corev1.Resource("componentstatuses"): {}, corev1.Resource("events"): {},
		{Group: "events.k8s.io", Resource: "events"}: {},
	}
	for _, r := range questions() {
		ignored[r] = struct{}{}
	}
	return generic.NewConfiguration([]sums.Evaluator{
		evaluator[*corev1.Pod]{
			resource: "pods", speaks: ofPods, inScope: quota.InScope, handles: podChanges, demand: demandOfPod,
			takes: func(p *corev1.Pod) corev1.ResourceList { return quota.Pod(p, time.Now()) },
		},
		evaluator[*corev1.Service]{resource: "services", speaks: ofServices, takes: quota.Service},
		evaluator[*corev1.PersistentVolumeClaim]{
			resource: "persistentvolumeclaims", speaks: ofClaims, inScope: quota.ClaimInScope, takes: quota.Claim,
		},
	}, ignored)
}

// evaluator counts the objects of one kind for admission. Fields without a
// value mean the usual: every creation and update counts, no scope matches,
// nothing is demanded.
type evaluator[T runtime.Object] struct {
	resource string
	takes    func(T) corev1.ResourceList
	speaks   func(corev1.ResourceName) bool // whether such objects can take any of it
	inScope  func(T, corev1.ScopedResourceSelectorRequirement) bool
	handles  func(admission.Attributes) bool
	demand   func(T, []corev1.ResourceName) error
}

func (e evaluator[T]) object(obj runtime.Object) (T, error) {
	t, ok := obj.(T)
	if !ok {
		return t, fmt.Errorf("count %s: unexpected %T", e.resource, obj)
	}
	return t, nil
}

// Constraints implements quota.Evaluator.
func (e evaluator[T]) Constraints(required []corev1.ResourceName, obj runtime.Object) error {
	t, err := e.object(obj)
	if err != nil || e.demand == nil {
		return err
	}
	return e.demand(t, required)
}

// GroupResource implements quota.Evaluator.
func (e evaluator[T]) GroupResource() schema.GroupResource { return corev1.Resource(e.resource) }

// Handles implements quota.Evaluator.
func (e evaluator[T]) Handles(a admission.Attributes) bool {
	if e.handles != nil {
		return e.handles(a)
	}
	return a.GetSubresource() == "" && (a.GetOperation() == admission.Create || a.GetOperation() == admission.Update)
}

// Matches implements quota.Evaluator.
func (e evaluator[T]) Matches(q *corev1.ResourceQuota, obj runtime.Object) (bool, error) {
	return generic.Matches(q, obj, e.MatchingResources, func(s corev1.ScopedResourceSelectorRequirement, obj runtime.Object) (bool, error) {
		t, err := e.object(obj)
		return err == nil && e.inScope != nil && e.inScope(t, s), err
	})
}

// MatchingScopes implements quota.Evaluator.
func (e evaluator[T]) MatchingScopes(obj runtime.Object, all []corev1.ScopedResourceSelectorRequirement) ([]corev1.ScopedResourceSelectorRequirement, error) {
	t, err := e.object(obj)
	if err != nil || e.inScope == nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(all), func(s corev1.ScopedResourceSelectorRequirement) bool { return !e.inScope(t, s) }), nil
}

// UncoveredQuotaScopes implements quota.Evaluator.
func (e evaluator[T]) UncoveredQuotaScopes(limited, covered []corev1.ScopedResourceSelectorRequirement) ([]corev1.ScopedResourceSelectorRequirement, error) {
	return slices.DeleteFunc(slices.Clone(limited), func(l corev1.ScopedResourceSelectorRequirement) bool {
		return slices.ContainsFunc(covered, func(c corev1.ScopedResourceSelectorRequirement) bool { return c.ScopeName == l.ScopeName })
	}), nil
}

// MatchingResources implements quota.Evaluator.
func (e evaluator[T]) MatchingResources(names []corev1.ResourceName) []corev1.ResourceName {
	return slices.DeleteFunc(slices.Clone(names), func(n corev1.ResourceName) bool { return !e.speaks(n) })
}

// Usage implements quota.Evaluator.
func (e evaluator[T]) Usage(obj runtime.Object) (corev1.ResourceList, error) {
	t, err := e.object(obj)
	if err != nil {
		return nil, err
	}
	return e.takes(t), nil
}

// UsageStats implements quota.Evaluator. Admission never asks for it; the
// whole usage is counted by the controller.
func (e evaluator[T]) UsageStats(sums.UsageStatsOptions) (sums.UsageStats, error) {
	return sums.UsageStats{}, errors.ErrUnsupported
}

func ofPods(name corev1.ResourceName) bool {
	n := string(name)
	bare := strings.TrimPrefix(n, "requests.")
	switch name {
	case corev1.ResourcePods, "count/pods", corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage:
		return true
	default:
	}
	switch corev1.ResourceName(bare) {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
		return true
	default:
	}
	extended := bare != n && strings.Contains(bare, "/") && !strings.Contains(bare, ".storageclass.storage.k8s.io/")
	return extended || strings.HasPrefix(bare, corev1.ResourceHugePagesPrefix)
}

func ofServices(name corev1.ResourceName) bool {
	return slices.Contains([]corev1.ResourceName{
		corev1.ResourceServices, "count/services", corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers,
	}, name)
}

func ofClaims(name corev1.ResourceName) bool {
	_, ofClass, _ := strings.Cut(string(name), ".storageclass.storage.k8s.io/")
	plain := []corev1.ResourceName{corev1.ResourcePersistentVolumeClaims, corev1.ResourceRequestsStorage}
	return name == "count/persistentvolumeclaims" || slices.Contains(plain, name) || slices.Contains(plain, corev1.ResourceName(ofClass))
}

// podChanges are the requests that change what a pod takes.
func podChanges(a admission.Attributes) bool {
	switch a.GetSubresource() {
	case "resize":
		return a.GetOperation() == admission.Update
	case "":
		p, ok1 := a.GetObject().(*corev1.Pod)
		old, ok2 := a.GetOldObject().(*corev1.Pod)
		scope := ok1 && ok2 && (p.Spec.ActiveDeadlineSeconds == nil) != (old.Spec.ActiveDeadlineSeconds == nil)
		return a.GetOperation() == admission.Create || a.GetOperation() == admission.Update && scope
	}
	return false
}

// demandOfPod: where CPU or memory is limited, each container must say how
// much of it it wants, unless the pod says so as a whole.
func demandOfPod(p *corev1.Pod, limited []corev1.ResourceName) error {
	if resourcehelper.IsPodLevelResourcesSet(p) {
		return nil
	}
	missing := map[string][]string{}
	for _, name := range limited {
		bare, isLimit := strings.CutPrefix(strings.TrimPrefix(string(name), "requests."), "limits.")
		if bare != string(corev1.ResourceCPU) && bare != string(corev1.ResourceMemory) {
			continue
		}
		for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
			list := c.Resources.Requests
			if isLimit {
				list = c.Resources.Limits
			}
			if _, ok := list[corev1.ResourceName(bare)]; !ok && !slices.Contains(missing[string(name)], c.Name) {
				missing[string(name)] = append(missing[string(name)], c.Name)
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		slices.Sort(missing[name])
		parts = append(parts, fmt.Sprintf("%s for: %s", name, strings.Join(missing[name], ",")))
	}
	return errors.New("must specify " + strings.Join(parts, "; "))
}
