package validation

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	resourcehelper "k8s.io/component-helpers/resource"
)

// resourceNameRule judges the name of a resource.
type resourceNameRule func(p *problems, path *field.Path, name corev1.ResourceName)

func hugePage(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// native tells whether Kubernetes itself defines the resource.
func native(name corev1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

// extended tells whether a vendor may define the resource.
func extended(name corev1.ResourceName) bool {
	if native(name) || strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix) {
		return false
	}
	quota := corev1.DefaultResourceRequestsPrefix + string(name)
	return len(validation.IsQualifiedName(quota)) == 0
}

// overcommit tells whether requests and limits of a resource may differ.
func overcommit(name corev1.ResourceName) bool { return native(name) && !hugePage(name) }

// wholeNumber tells whether a resource comes in units only.
func wholeNumber(name corev1.ResourceName) bool {
	return extended(name) || slices.Contains(countedResources(), name)
}

// countedResources are objects that a quota counts.
func countedResources() []corev1.ResourceName {
	return []corev1.ResourceName{
		corev1.ResourcePods, corev1.ResourceServices, corev1.ResourceReplicationControllers, corev1.ResourceQuotas,
		corev1.ResourceSecrets, corev1.ResourceConfigMaps, corev1.ResourcePersistentVolumeClaims,
		corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers,
	}
}

func containerStandard(name corev1.ResourceName) bool {
	return name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage || hugePage(name)
}

// standard tells whether a name without a prefix means something somewhere.
func standard(name corev1.ResourceName) bool {
	others := []corev1.ResourceName{
		corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsEphemeralStorage,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage,
		corev1.ResourceRequestsStorage, corev1.ResourceStorage,
	}
	return containerStandard(name) || slices.Contains(countedResources(), name) || slices.Contains(others, name) ||
		strings.HasPrefix(string(name), corev1.ResourceRequestsHugePagesPrefix)
}

// resourceName is what holds for names of resources everywhere. It reports
// whether the name is good.
func resourceName(p *problems, path *field.Path, name corev1.ResourceName) bool {
	complaints := validation.IsQualifiedName(string(name))
	p.invalid(path, name, complaints...)
	if len(complaints) > 0 {
		return false
	}
	if !strings.Contains(string(name), "/") && !standard(name) {
		p.invalid(path, name, "must be a standard resource type or fully qualified")
		return false
	}
	return true
}

func containerResourceName(p *problems, path *field.Path, name corev1.ResourceName) {
	resourceName(p, path, name)
	switch bare := !strings.Contains(string(name), "/"); {
	case bare && !containerStandard(name):
		p.invalid(path, name, "must be a standard resource for containers")
	case !native(name) && !extended(name):
		p.invalid(path, name, "doesn't follow extended resource name standard")
	}
}

func podResourceName(p *problems, path *field.Path, name corev1.ResourceName) {
	if !resourceName(p, path, name) || resourcehelper.IsSupportedPodLevelResource(name) {
		return
	}
	supported := slices.Sorted(maps.Keys(resourcehelper.SupportedPodLevelResources()))
	p.add(field.NotSupported(path, name, supported))
}

// quantity demands an amount that is not negative and, where the resource
// comes in units, whole.
func (p *problems) quantity(path *field.Path, name corev1.ResourceName, q resource.Quantity) {
	p.nonNegativeQuantity(path, q)
	if wholeNumber(name) && q.MilliValue()%1000 != 0 {
		p.invalid(path, q, "must be an integer")
	}
}

func (p *problems) nonNegativeQuantity(path *field.Path, q resource.Quantity) {
	if q.Cmp(resource.Quantity{}) < 0 {
		p.invalid(path, q.String(), apimachinery.IsNegativeErrorMsg)
	}
}

// checkRequirements validates requests and limits and how they fit together.
func (c *podCheck) checkRequirements(path *field.Path, r *corev1.ResourceRequirements, rule resourceNameRule) {
	limits, requests := path.Child("limits"), path.Child("requests")
	huge, ordinary := false, false
	amount := func(at *field.Path, name corev1.ResourceName, q resource.Quantity) {
		rule(c.problems, at, name)
		c.quantity(at, name, q)
		if hugePage(name) {
			huge = true
			if !c.kept.indivisibleHugePages && !wholePages(name, q) {
				c.invalid(at, q.String(), fmt.Sprintf("%s is not positive integer multiple of %s", q.String(), name))
			}
		}
		ordinary = ordinary || name == corev1.ResourceCPU || name == corev1.ResourceMemory
	}
	for _, name := range sorted(r.Limits) {
		amount(limits.Key(string(name)), name, r.Limits[name])
	}
	for _, name := range sorted(r.Requests) {
		q := r.Requests[name]
		amount(requests.Key(string(name)), name, q)
		limit, limited := r.Limits[name]
		switch {
		case !limited && !overcommit(name):
			c.required(limits, "Limit must be set for non overcommitable resources")
		case !limited:
		case q.Cmp(limit) != 0 && !overcommit(name):
			c.invalid(requests, q.String(), fmt.Sprintf("must be equal to %s limit of %s", name, limit.String()))
		case q.Cmp(limit) > 0:
			c.invalid(requests, q.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", name, limit.String()))
		}
	}
	c.forbid(path, huge && !ordinary, "HugePages require cpu or memory")
	c.checkClaimRefs(path.Child("claims"), r.Claims)
}

// wholePages tells whether an amount is made of pages of the resource's size.
func wholePages(name corev1.ResourceName, q resource.Quantity) bool {
	size, err := resource.ParseQuantity(strings.TrimPrefix(string(name), corev1.ResourceHugePagesPrefix))
	if err != nil || size.Sign() < 1 || size.MilliValue()%1000 != 0 {
		return false
	}
	return q.Value()%size.Value() == 0
}

// checkClaimRefs validates which of the pod's claims a container uses.
func (c *podCheck) checkClaimRefs(path *field.Path, refs []corev1.ResourceClaim) {
	seen := map[string]bool{}
	for i, ref := range refs {
		at := path.Index(i)
		if ref.Name == "" {
			c.required(at, "")
			continue
		}
		c.checkClaimOverlap(at, ref, seen)
		if !c.claims[ref.Name] {
			missing := field.NotFound(at, ref.Name)
			missing.Detail = "must be one of the names in pod.spec.resourceClaims which is empty"
			if len(c.claims) > 0 {
				missing.Detail = "must be one of the names in pod.spec.resourceClaims: " + strings.Join(sorted(c.claims), ", ")
			}
			c.add(missing)
		}
	}
}

func (c *podCheck) checkClaimOverlap(at *field.Path, ref corev1.ResourceClaim, seen map[string]bool) {
	if seen[ref.Name] {
		c.duplicate(at, ref.Name)
		return
	}
	key := ref.Name
	if ref.Request != "" {
		c.problems.check(at.Child("request"), ref.Request, validation.IsDNS1123Label)
		key += "/" + ref.Request
	}
	if seen[key] {
		c.duplicate(at, key)
	} else if ref.Request == "" {
		for _, other := range sorted(seen) {
			if strings.HasPrefix(other, ref.Name+"/") {
				c.duplicate(at, ref.Name)
			}
		}
	}
	seen[key] = true
}

// checkClaims validates the pod's own claims and remembers their names.
func (c *podCheck) checkClaims(path *field.Path) {
	c.claims = map[string]bool{}
	seen := map[string]bool{}
	for i := range c.spec.ResourceClaims {
		at, claim := path.Index(i), &c.spec.ResourceClaims[i]
		if claim.Name != "" {
			c.claims[claim.Name] = true
		}
		if c.meta != nil {
			if _, static := c.meta.Annotations[corev1.MirrorPodAnnotationKey]; static {
				c.forbidden(field.NewPath(""), "static pods do not support resource claims")
				continue
			}
		}
		switch {
		case claim.Name == "":
			c.required(at.Child("name"), "")
		case seen[claim.Name]:
			c.duplicate(at.Child("name"), claim.Name)
		default:
			c.problems.check(at.Child("name"), claim.Name, validation.IsDNS1123Label)
			seen[claim.Name] = true
		}
		shown := printed(*claim)
		switch named, templated := claim.ResourceClaimName != nil, claim.ResourceClaimTemplateName != nil; {
		case named && templated:
			c.invalid(at, shown, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified")
		case !named && !templated:
			c.invalid(at, shown, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`")
		}
		if n := claim.ResourceClaimName; n != nil {
			c.name(at.Child("resourceClaimName"), *n, apimachinery.NameIsDNSSubdomain)
		}
		if n := claim.ResourceClaimTemplateName; n != nil {
			c.name(at.Child("resourceClaimTemplateName"), *n, apimachinery.NameIsDNSSubdomain)
		}
	}
}

func (c *podCheck) checkOverhead(path *field.Path) {
	kept := c.kept
	(&podCheck{problems: c.problems, spec: c.spec, kept: kept}).checkRequirements(path,
		&corev1.ResourceRequirements{Limits: c.spec.Overhead}, containerResourceName)
}

// checkPodResources validates the resources of the pod as a whole against
// those of its containers.
func (c *podCheck) checkPodResources(path *field.Path) {
	r := c.spec.Resources
	if r == nil {
		return
	}
	path = path.Child("resources")
	if c.spec.OS != nil && c.spec.OS.Name == corev1.Windows {
		c.forbidden(path, "may not be set for a windows pod")
		return
	}
	c.forbid(path.Child("claims"), r.Claims != nil, "claims may not be set for Resources at pod-level")
	c.checkRequirements(path, r, podResourceName)
	pod := &corev1.Pod{Spec: *c.spec}
	requests := resourcehelper.AggregateContainerRequests(pod, resourcehelper.PodResourcesOptions{})
	for _, name := range sorted(requests) {
		sum := requests[name]
		if q, ok := r.Requests[name]; ok && sum.Cmp(q) > 0 {
			c.invalid(path.Child("requests").Key(string(name)), q.String(),
				"must be greater than or equal to aggregate container requests of "+sum.String())
		}
	}
	limits := resourcehelper.AggregateContainerLimits(pod, resourcehelper.PodResourcesOptions{})
	for _, name := range sorted(limits) {
		sum := limits[name]
		if q, ok := r.Limits[name]; ok && hugePage(name) && sum.Cmp(q) > 0 {
			c.invalid(path.Child("limits").Key(string(name)), q.String(),
				"must be greater than or equal to aggregate container limits of "+sum.String())
		}
	}
	for i := range c.spec.Containers {
		own := c.spec.Containers[i].Resources.Limits
		for _, name := range sorted(own) {
			q := own[name]
			if limit, ok := r.Limits[name]; ok && q.Cmp(limit) > 0 {
				c.invalid(path.Child("containers").Index(i).Key(string(name)).Child("limits"), q.String(),
					"must be less than or equal to pod limits of "+limit.String())
			}
		}
	}
}
