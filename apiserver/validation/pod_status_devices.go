package validation

import (
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	unknownPodClaim  = "must match the name of an entry in `spec.resourceClaims`"
	unknownContainer = "must match the name of an entry in spec.initContainers.name or spec.containers.name"
	unknownExtended  = "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests"
	unknownRequest   = "must match one of the container's resource requests"
	unknownClaim     = "must match one of the container's resource claims as 'claim:<claimName>/<requestName>' when " +
		"container.resources.claims[*].request is set or 'claim:<claimName>' when it is empty"
	claimPrefix = "claim:"
)

// claimStatuses validates which claims a pod's own claims have become.
func claimStatuses(p *problems, path *field.Path, statuses []corev1.PodResourceClaimStatus, claims []corev1.PodResourceClaim) {
	seen := map[string]bool{}
	for i, s := range statuses {
		at := path.Index(i)
		if !slices.ContainsFunc(claims, func(c corev1.PodResourceClaim) bool { return c.Name == s.Name }) {
			p.invalid(at.Child("name"), s.Name, unknownPodClaim)
		}
		if seen[s.Name] {
			p.duplicate(at.Child("name"), s.Name)
		}
		seen[s.Name] = true
		if s.ResourceClaimName != nil {
			p.name(at.Child("resourceClaimName"), *s.ResourceClaimName, apimachinery.NameIsDNSSubdomain)
		}
	}
}

// extendedClaim validates which claim stands for a pod's extended resources.
func extendedClaim(p *problems, path *field.Path, s *corev1.PodExtendedResourceClaimStatus, spec *corev1.PodSpec) {
	if s == nil {
		return
	}
	mappings := path.Child("requestMappings")
	if len(s.RequestMappings) == 0 {
		p.required(mappings, "at least one request mapping is required")
	}
	seen := map[corev1.ContainerExtendedResourceRequest]bool{}
	for i, m := range s.RequestMappings {
		at := mappings.Index(i)
		if c := containerNamed(m.ContainerName, spec.Containers, spec.InitContainers); c == nil {
			p.invalid(at.Child("containerName"), m.ContainerName, unknownContainer)
		} else if _, ok := c.Resources.Requests[corev1.ResourceName(m.ResourceName)]; !ok {
			p.invalid(at.Child("resourceName"), m.ResourceName, unknownExtended)
		}
		p.shortName(path.Child("requestName"), m.RequestName)
		if seen[m] {
			p.duplicate(at.Child("containerName"), m.ContainerName)
			p.duplicate(at.Child("resourceName"), m.ResourceName)
			p.duplicate(at.Child("requestName"), m.RequestName)
		}
		seen[m] = true
	}
	if s.ResourceClaimName == "" {
		p.required(path.Child("resourceClaimName"), "")
		return
	}
	p.name(path.Child("resourceClaimName"), s.ResourceClaimName, apimachinery.NameIsDNSSubdomain)
}

// containerNamed finds a container; the last of that name in the first list
// that has one counts.
func containerNamed(name string, lists ...[]corev1.Container) *corev1.Container {
	for _, list := range lists {
		for i := len(list) - 1; i >= 0; i-- {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// deviceHealth validates what a node reports of the devices of containers.
func deviceHealth(p *problems, path *field.Path, statuses []corev1.ContainerStatus, containers []corev1.Container, pod *corev1.PodStatus) {
	for i, s := range statuses {
		at := path.Index(i).Child("allocatedResourcesStatus")
		which := slices.IndexFunc(containers, func(c corev1.Container) bool { return c.Name == s.Name })
		for j, allocated := range s.AllocatedResourcesStatus {
			if which >= 0 {
				allocatedName(p, at.Index(j).Child("name"), allocated.Name, &containers[which], pod.ExtendedResourceClaimStatus)
			}
			resourceHealth(p, at.Index(j).Child("resources"), allocated.Resources)
		}
	}
}

func allocatedName(p *problems, at *field.Path, name corev1.ResourceName, c *corev1.Container, extended *corev1.PodExtendedResourceClaimStatus) {
	claim, isClaim := strings.CutPrefix(string(name), claimPrefix)
	if !isClaim {
		if _, ok := c.Resources.Requests[name]; !ok {
			p.invalid(at, name, unknownRequest)
		}
		return
	}
	known := slices.ContainsFunc(c.Resources.Claims, func(r corev1.ResourceClaim) bool {
		return claim == r.Name && r.Request == "" || r.Request != "" && claim == r.Name+"/"+r.Request
	})
	if !known && !standsForExtended(claim, c, extended) {
		p.invalid(at, name, unknownClaim)
	}
}

// standsForExtended tells whether a claim is how the container got one of its
// extended resources.
func standsForExtended(claim string, c *corev1.Container, s *corev1.PodExtendedResourceClaimStatus) bool {
	name, request, _ := strings.Cut(claim, "/")
	if s == nil || name == "" || request == "" || name != s.ResourceClaimName {
		return false
	}
	return slices.ContainsFunc(s.RequestMappings, func(m corev1.ContainerExtendedResourceRequest) bool {
		amount, ok := c.Resources.Requests[corev1.ResourceName(m.ResourceName)]
		return m.ContainerName == c.Name && m.RequestName == request && ok && !amount.IsZero()
	})
}

func resourceHealth(p *problems, path *field.Path, list []corev1.ResourceHealth) {
	seen := map[corev1.ResourceID]bool{}
	for i, r := range list {
		at := path.Index(i)
		oneOf(p, at.Child("health"), r.Health,
			corev1.ResourceHealthStatusHealthy, corev1.ResourceHealthStatusUnhealthy, corev1.ResourceHealthStatusUnknown)
		switch m := at.Child("message"); {
		case r.Message == nil:
		case *r.Message == "":
			p.required(m, "must be non-empty if specified")
		case len(*r.Message) > corev1.ResourceHealthMessageMaxLength:
			p.add(field.TooLong(m, *r.Message, corev1.ResourceHealthMessageMaxLength))
		}
		if seen[r.ResourceID] {
			p.duplicate(at.Child("resourceID"), r.ResourceID)
		}
		seen[r.ResourceID] = true
	}
}

// containerUsers validates whose processes a node says the containers run.
func containerUsers(p *problems, path *field.Path, statuses []corev1.ContainerStatus, system *corev1.PodOS) {
	windows := system != nil && system.Name == corev1.Windows
	if system != nil && !windows && system.Name != corev1.Linux {
		return
	}
	for i, s := range statuses {
		if s.User == nil || s.User.Linux == nil {
			continue
		}
		at, user := path.Index(i).Child("user", "linux"), s.User.Linux
		if windows {
			p.forbidden(at, "cannot be set for a windows pod")
			continue
		}
		if user.UID < 0 || user.UID > math.MaxUint32 {
			p.invalid(at.Child("uid"), user.UID, validation.InclusiveRangeError(0, math.MaxUint32))
		}
		p.groupID(at.Child("gid"), &user.GID)
		for j := range user.SupplementalGroups {
			p.groupID(at.Child("supplementalGroups").Index(j), &user.SupplementalGroups[j])
		}
	}
}
