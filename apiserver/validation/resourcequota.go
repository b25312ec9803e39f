package validation

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ResourceQuota validates a quota.
func ResourceQuota(q *corev1.ResourceQuota) field.ErrorList {
	p := meta(&q.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	quotaSpec(&p, &q.Spec)
	quotaStatus(&p, &q.Status)
	return p.list
}

// ResourceQuotaUpdate validates a change of a quota; its scopes stay.
func ResourceQuotaUpdate(q, old *corev1.ResourceQuota) field.ErrorList {
	p := metaUpdate(&q.ObjectMeta, &old.ObjectMeta)
	quotaSpec(&p, &q.Spec)
	as := func(list []corev1.ResourceQuotaScope) []corev1.ResourceQuotaScope {
		return slices.Compact(slices.Sorted(slices.Values(list)))
	}
	if !slices.Equal(as(q.Spec.Scopes), as(old.Spec.Scopes)) {
		p.invalid(field.NewPath("spec", "scopes"), q.Spec.Scopes, apimachinery.FieldImmutableErrorMsg)
	}
	return p.list
}

// ResourceQuotaStatusUpdate validates what the controller counts.
func ResourceQuotaStatusUpdate(q, old *corev1.ResourceQuota) field.ErrorList {
	p := metaUpdate(&q.ObjectMeta, &old.ObjectMeta)
	if q.ResourceVersion == "" {
		p.required(field.NewPath("resourceVersion"), "")
	}
	quotaStatus(&p, &q.Status)
	return p.list
}

func quotaStatus(p *problems, s *corev1.ResourceQuotaStatus) {
	quotaList(p, field.NewPath("status", "hard"), s.Hard)
	quotaList(p, field.NewPath("status", "used"), s.Used)
}

func quotaList(p *problems, path *field.Path, list corev1.ResourceList) {
	for _, name := range sorted(list) {
		at := path.Key(string(name))
		resourceName(p, at, name)
		if !strings.Contains(string(name), "/") && !quotaStandard(name) {
			p.invalid(at, name, "must be a standard resource for quota")
		}
		p.quantity(at, name, list[name])
	}
}

// quotaStandard tells whether a quota may count a resource of that bare name.
func quotaStandard(name corev1.ResourceName) bool {
	return slices.Contains(countedResources(), name) || slices.Contains([]corev1.ResourceName{
		corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, corev1.ResourceRequestsCPU,
		corev1.ResourceRequestsMemory, corev1.ResourceRequestsStorage, corev1.ResourceRequestsEphemeralStorage,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage,
	}, name) || hugePage(name) || strings.HasPrefix(string(name), corev1.ResourceRequestsHugePagesPrefix)
}

func quotaSpec(p *problems, s *corev1.ResourceQuotaSpec) {
	path := field.NewPath("spec")
	quotaList(p, path.Child("hard"), s.Hard)
	at := path.Child("scopes")
	for _, scope := range s.Scopes {
		if !knownScope(scope) {
			p.invalid(at, s.Scopes, "unsupported scope")
		}
		outOfScope(p, at, s, scope, s.Scopes)
	}
	conflicts(p, at, s, s.Scopes)
	if s.ScopeSelector == nil {
		return
	}
	at = path.Child("scopeSelector", "matchExpressions")
	var selected []corev1.ResourceQuotaScope
	for _, r := range s.ScopeSelector.MatchExpressions {
		if !knownScope(r.ScopeName) {
			p.invalid(at.Child("scopeName"), r.ScopeName, "unsupported scope")
		}
		outOfScope(p, at, s, r.ScopeName, printed(s.ScopeSelector))
		scopeRequirement(p, at, r)
		selected = append(selected, r.ScopeName)
	}
	conflicts(p, at, s, selected)
}

func knownScope(scope corev1.ResourceQuotaScope) bool {
	return existing(scope) || scope == corev1.ResourceQuotaScopePriorityClass || scope == corev1.ResourceQuotaScopeVolumeAttributesClass
}

// existing tells whether an object is in the scope or not, without a value to
// compare.
func existing(scope corev1.ResourceQuotaScope) bool {
	switch scope {
	case corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort, corev1.ResourceQuotaScopeTerminating,
		corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return true
	default:
		return false
	}
}

// outOfScope refuses resources that nothing in the scope can use.
func outOfScope(p *problems, path *field.Path, s *corev1.ResourceQuotaSpec, scope corev1.ResourceQuotaScope, shown any) {
	fits := func(corev1.ResourceName) bool { return true }
	pods := func(name corev1.ResourceName) bool { return name == corev1.ResourcePods }
	switch scope {
	case corev1.ResourceQuotaScopeBestEffort:
		fits = pods
	case corev1.ResourceQuotaScopeVolumeAttributesClass:
		fits = func(name corev1.ResourceName) bool {
			return name == corev1.ResourcePersistentVolumeClaims || name == corev1.ResourceRequestsStorage
		}
	case corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeNotBestEffort,
		corev1.ResourceQuotaScopePriorityClass, corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		fits = func(name corev1.ResourceName) bool {
			return pods(name) || slices.Contains([]corev1.ResourceName{
				corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory,
				corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory,
			}, name)
		}
	}
	for _, name := range sorted(s.Hard) {
		if quotaStandard(name) && !fits(name) {
			p.invalid(path, shown, "unsupported scope applied to resource")
		}
	}
}

func conflicts(p *problems, path *field.Path, s *corev1.ResourceQuotaSpec, scopes []corev1.ResourceQuotaScope) {
	for _, pair := range [][2]corev1.ResourceQuotaScope{
		{corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort},
		{corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating},
	} {
		if slices.Contains(scopes, pair[0]) && slices.Contains(scopes, pair[1]) {
			p.invalid(path, s.Scopes, "conflicting scopes")
		}
	}
}

func scopeRequirement(p *problems, path *field.Path, r corev1.ScopedResourceSelectorRequirement) {
	if existing(r.ScopeName) && r.Operator != corev1.ScopeSelectorOpExists {
		p.invalid(path.Child("operator"), r.Operator, "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, "+
			"ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity")
	}
	switch values := path.Child("values"); r.Operator {
	case corev1.ScopeSelectorOpIn, corev1.ScopeSelectorOpNotIn:
		if len(r.Values) == 0 {
			p.required(values, "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector")
		}
	case corev1.ScopeSelectorOpExists, corev1.ScopeSelectorOpDoesNotExist:
		if len(r.Values) > 0 {
			p.invalid(values, r.Values, "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector")
		}
	default:
		p.invalid(path.Child("operator"), r.Operator, notASelectorTerm)
	}
}
