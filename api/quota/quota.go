// Package quota counts what objects take of a ResourceQuota. Admission books it
// before an object exists, the controller gives it back after.
//
// Its invariant: both count by the same rules, those of upstream's evaluators.
package quota

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	sums "k8s.io/apiserver/pkg/quota/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

// countPrefix begins the names that count objects of any kind.
const countPrefix = "count/"

const requests = "requests."

func one() resource.Quantity { return *resource.NewQuantity(1, resource.DecimalSI) }

// Pod is what a pod takes of a quota.
func Pod(p *corev1.Pod, now time.Time) corev1.ResourceList {
	out := corev1.ResourceList{countPrefix + "pods": one()}
	if !Charged(p, now) {
		return out
	}
	out[corev1.ResourcePods] = one()
	opts := resourcehelper.PodResourcesOptions{UseStatusResources: true}
	for name, q := range resourcehelper.PodRequests(p, opts) {
		switch name {
		case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
			out[name], out[requests+name] = q, q
		default:
			if strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
				out[name] = q
			}
			out[requests+name] = q
		}
	}
	for name, q := range resourcehelper.PodLimits(p, opts) {
		switch name {
		case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
			out["limits."+name] = q
		default:
		}
	}
	return out
}

// Charged reports whether the pod still takes anything: it has neither ended
// nor overstayed its deletion, as on a node that is lost.
func Charged(p *corev1.Pod, now time.Time) bool {
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return false
	}
	if p.DeletionTimestamp == nil || p.DeletionGracePeriodSeconds == nil {
		return true
	}
	return !now.After(p.DeletionTimestamp.Add(time.Duration(*p.DeletionGracePeriodSeconds) * time.Second))
}

// Service is what a service takes.
func Service(s *corev1.Service) corev1.ResourceList {
	out := corev1.ResourceList{countPrefix + "services": one(), corev1.ResourceServices: one()}
	ports := int64(0)
	switch s.Spec.Type {
	case corev1.ServiceTypeLoadBalancer:
		out[corev1.ResourceServicesLoadBalancers] = one()
		for _, p := range s.Spec.Ports {
			if s.Spec.AllocateLoadBalancerNodePorts == nil || *s.Spec.AllocateLoadBalancerNodePorts || p.NodePort != 0 {
				ports++
			}
		}
	case corev1.ServiceTypeNodePort:
		ports = int64(len(s.Spec.Ports))
	default:
	}
	out[corev1.ResourceServicesNodePorts] = *resource.NewQuantity(ports, resource.DecimalSI)
	return out
}

// Claim is what a claim of storage takes, in all and of its class.
func Claim(c *corev1.PersistentVolumeClaim) corev1.ResourceList {
	out := corev1.ResourceList{countPrefix + "persistentvolumeclaims": one(), corev1.ResourcePersistentVolumeClaims: one()}
	class := c.Annotations[corev1.BetaStorageClassAnnotation]
	if class == "" && c.Spec.StorageClassName != nil {
		class = *c.Spec.StorageClassName
	}
	size, sized := c.Spec.Resources.Requests[corev1.ResourceStorage]
	if got, ok := c.Status.AllocatedResources[corev1.ResourceStorage]; ok && got.Cmp(size) > 0 {
		size = got
	}
	names := []string{""}
	if class != "" {
		names = append(names, class+".storageclass.storage.k8s.io/")
	}
	for _, prefix := range names {
		out[corev1.ResourceName(prefix)+corev1.ResourcePersistentVolumeClaims] = one()
		if sized {
			out[corev1.ResourceName(prefix)+corev1.ResourceRequestsStorage] = size
		}
	}
	return out
}

// objectUsage is what any other object takes: it is one of its kind, under
// the general name and, for the oldest kinds, under their own.
func objectUsage(resourceName string) corev1.ResourceList {
	out := corev1.ResourceList{corev1.ResourceName(countPrefix + resourceName): one()}
	if slices.Contains([]string{"configmaps", "secrets", "replicationcontrollers", "resourcequotas"}, resourceName) {
		out[corev1.ResourceName(resourceName)] = one()
	}
	return out
}

// scopes are all conditions of a quota in one form.
func scopes(q *corev1.ResourceQuota) []corev1.ScopedResourceSelectorRequirement {
	var out []corev1.ScopedResourceSelectorRequirement
	for _, s := range q.Spec.Scopes {
		out = append(out, corev1.ScopedResourceSelectorRequirement{ScopeName: s, Operator: corev1.ScopeSelectorOpExists})
	}
	if q.Spec.ScopeSelector != nil {
		out = append(out, q.Spec.ScopeSelector.MatchExpressions...)
	}
	return out
}

// InScope reports whether a pod meets one condition.
func InScope(p *corev1.Pod, s corev1.ScopedResourceSelectorRequirement) bool {
	switch s.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return p.Spec.ActiveDeadlineSeconds != nil
	case corev1.ResourceQuotaScopeNotTerminating:
		return p.Spec.ActiveDeadlineSeconds == nil
	case corev1.ResourceQuotaScopeBestEffort:
		return bestEffort(p)
	case corev1.ResourceQuotaScopeNotBestEffort:
		return !bestEffort(p)
	case corev1.ResourceQuotaScopePriorityClass:
		return named(p.Spec.PriorityClassName, s)
	case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return crossesNamespaces(p)
	default:
		return false
	}
}

// named judges a class name, "" is none, by a scope's operator.
func named(class string, s corev1.ScopedResourceSelectorRequirement) bool {
	op, ok := map[corev1.ScopeSelectorOperator]selection.Operator{
		corev1.ScopeSelectorOpIn: selection.In, corev1.ScopeSelectorOpNotIn: selection.NotIn,
		corev1.ScopeSelectorOpExists: selection.Exists, corev1.ScopeSelectorOpDoesNotExist: selection.DoesNotExist,
	}[s.Operator]
	if !ok {
		return false
	}
	r, err := labels.NewRequirement(string(s.ScopeName), op, s.Values)
	if err != nil {
		return false
	}
	set := labels.Set{}
	if class != "" {
		set[string(s.ScopeName)] = class
	}
	return r.Matches(set)
}

// bestEffort: nothing is asked for and nothing is limited.
func bestEffort(p *corev1.Pod) bool {
	has := func(r corev1.ResourceRequirements) bool {
		for _, l := range []corev1.ResourceList{r.Requests, r.Limits} {
			for name, q := range l {
				if (name == corev1.ResourceCPU || name == corev1.ResourceMemory) && !q.IsZero() {
					return true
				}
			}
		}
		return false
	}
	if p.Spec.Resources != nil && has(*p.Spec.Resources) {
		return false
	}
	for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
		if has(c.Resources) {
			return false
		}
	}
	return true
}

func crossesNamespaces(p *corev1.Pod) bool {
	a := p.Spec.Affinity
	if a == nil {
		return false
	}
	var terms []corev1.PodAffinityTerm
	add := func(must []corev1.PodAffinityTerm, like []corev1.WeightedPodAffinityTerm) {
		terms = append(terms, must...)
		for _, w := range like {
			terms = append(terms, w.PodAffinityTerm)
		}
	}
	if x := a.PodAffinity; x != nil {
		add(x.RequiredDuringSchedulingIgnoredDuringExecution, x.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if x := a.PodAntiAffinity; x != nil {
		add(x.RequiredDuringSchedulingIgnoredDuringExecution, x.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	return slices.ContainsFunc(terms, func(t corev1.PodAffinityTerm) bool { return len(t.Namespaces) > 0 || t.NamespaceSelector != nil })
}

// Objects are those of a namespace that a quota may speak of.
type Objects struct {
	Pods     []*corev1.Pod
	Services []*corev1.Service
	Claims   []*corev1.PersistentVolumeClaim
	// Counts are the numbers of others, by "resource.group".
	Counts map[string]int
}

// Used is what the objects take of a quota now, of each name it limits.
func Used(q *corev1.ResourceQuota, in Objects, now time.Time) corev1.ResourceList {
	sum := corev1.ResourceList{}
	all := scopes(q)
	for _, p := range in.Pods {
		if !slices.ContainsFunc(all, func(s corev1.ScopedResourceSelectorRequirement) bool { return !InScope(p, s) }) {
			sum = sums.Add(sum, Pod(p, now))
		}
	}
	for _, c := range in.Claims {
		if !slices.ContainsFunc(all, func(s corev1.ScopedResourceSelectorRequirement) bool { return !ClaimInScope(c, s) }) {
			sum = sums.Add(sum, Claim(c))
		}
	}
	if len(all) == 0 {
		for _, s := range in.Services {
			sum = sums.Add(sum, Service(s))
		}
		for name, n := range in.Counts {
			for k := range objectUsage(name) {
				sum[k] = *resource.NewQuantity(int64(n), resource.DecimalSI)
			}
		}
	}
	out := corev1.ResourceList{}
	for name, hard := range q.Spec.Hard {
		got, ok := sum[name]
		if !ok {
			got = resource.Quantity{Format: hard.Format}
		}
		out[name] = got
	}
	return out
}

// ClaimInScope reports whether a claim meets one condition.
func ClaimInScope(c *corev1.PersistentVolumeClaim, s corev1.ScopedResourceSelectorRequirement) bool {
	if s.ScopeName != corev1.ResourceQuotaScopeVolumeAttributesClass {
		return false
	}
	class := ""
	if c.Spec.VolumeAttributesClassName != nil {
		class = *c.Spec.VolumeAttributesClassName
	}
	return named(class, s)
}

// Counted are the resources, as "resource.group", that the quota counts by
// number and that are neither pods, services nor claims.
func Counted(q *corev1.ResourceQuota) []string {
	var out []string
	for name := range q.Spec.Hard {
		n, isCount := strings.CutPrefix(string(name), countPrefix)
		if !isCount && len(objectUsage(n)) == 1 {
			continue
		}
		if n != "pods" && n != "services" && n != "persistentvolumeclaims" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}
