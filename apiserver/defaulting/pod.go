// Package defaulting fills in what a user left out of an object, with the
// values the v1 API promises.
//
// Its invariant: every function is pure and idempotent: it reads nothing but
// its argument, and a second call changes nothing.
package defaulting

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

// set gives *field the value v if it has none.
func set[T comparable](field *T, v T) {
	var zero T
	if *field == zero {
		*field = v
	}
}

// point makes *field point to v if it points nowhere.
func point[T any](field **T, v T) {
	if *field == nil {
		*field = &v
	}
}

// Pod defaults a pod: what holds for every pod spec, and the few rules that
// hold for pods but not for the templates they are made from.
func Pod(p *corev1.Pod) {
	spec := &p.Spec
	if g := spec.TerminationGracePeriodSeconds; g != nil && *g < 0 {
		one := int64(1)
		spec.TerminationGracePeriodSeconds = &one
	}
	for _, list := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range list {
			requestsFromLimits(&list[i].Resources)
			if spec.HostNetwork {
				hostPorts(list[i].Ports)
			}
		}
	}
	point(&spec.EnableServiceLinks, corev1.DefaultEnableServiceLinks)
	PodSpec(spec)
	resourceList(spec.Overhead)
	podIPs(&p.Status)
	containerStatuses(p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses)
}

// containerStatuses rounds what nodes report like what users ask for.
func containerStatuses(lists ...[]corev1.ContainerStatus) {
	for _, list := range lists {
		for i := range list {
			resourceList(list[i].AllocatedResources)
			if r := list[i].Resources; r != nil {
				requirements(r)
			}
		}
	}
}

func requestsFromLimits(r *corev1.ResourceRequirements) {
	if r.Limits == nil {
		return
	}
	if r.Requests == nil {
		r.Requests = corev1.ResourceList{}
	}
	for name, limit := range r.Limits {
		if _, ok := r.Requests[name]; !ok {
			r.Requests[name] = limit.DeepCopy()
		}
	}
}

func hostPorts(ports []corev1.ContainerPort) {
	for i := range ports {
		set(&ports[i].HostPort, ports[i].ContainerPort)
	}
}

// podIPs keeps the single address and the list equal; the single one wins.
func podIPs(s *corev1.PodStatus) {
	switch {
	case s.PodIP == "" && len(s.PodIPs) > 0:
		s.PodIP = s.PodIPs[0].IP
	case s.PodIP != "" && (len(s.PodIPs) == 0 || s.PodIPs[0].IP != s.PodIP):
		s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	}
}

// PodLevelResources completes the resources of a whole pod from those of its
// containers. It belongs to the creation of a pod, after admission has seen
// it, because admission may add containers.
func PodLevelResources(p *corev1.Pod) {
	r := p.Spec.Resources
	if r == nil || len(r.Limits) == 0 && len(r.Requests) == 0 {
		return
	}
	for name, sum := range resourcehelper.AggregateContainerLimits(p, resourcehelper.PodResourcesOptions{}) {
		if _, asked := r.Requests[name]; asked || !isHugePage(name) || !resourcehelper.IsSupportedPodLevelResource(name) {
			continue
		}
		if _, ok := r.Limits[name]; !ok {
			if r.Limits == nil {
				r.Limits = corev1.ResourceList{}
			}
			r.Limits[name] = sum.DeepCopy()
		}
	}
	request := func(from corev1.ResourceList, overcommittable bool) {
		for name, q := range from {
			if _, ok := r.Requests[name]; ok || !resourcehelper.IsSupportedPodLevelResource(name) || overcommittable && isHugePage(name) {
				continue
			}
			if r.Requests == nil {
				r.Requests = corev1.ResourceList{}
			}
			r.Requests[name] = q.DeepCopy()
		}
	}
	request(resourcehelper.AggregateContainerRequests(p, resourcehelper.PodResourcesOptions{}), true)
	request(r.Limits, false)
	podLimits(p, r)
}

// podLimits limits what the pod requests and every container limits: to the
// sum of the containers' limits, or to the request if that is more.
func podLimits(p *corev1.Pod, r *corev1.ResourceRequirements) {
	sums := resourcehelper.AggregateContainerLimits(p, resourcehelper.PodResourcesOptions{})
	for name, request := range r.Requests {
		sum, known := sums[name]
		if _, limited := r.Limits[name]; limited || !known || !resourcehelper.IsSupportedPodLevelResource(name) || !allLimit(&p.Spec, name) {
			continue
		}
		if request.Cmp(sum) > 0 {
			sum = request
		}
		if r.Limits == nil {
			r.Limits = corev1.ResourceList{}
		}
		r.Limits[name] = sum.DeepCopy()
	}
}

func allLimit(s *corev1.PodSpec, name corev1.ResourceName) bool {
	for _, list := range [][]corev1.Container{s.InitContainers, s.Containers} {
		for i := range list {
			if _, ok := list[i].Resources.Limits[name]; !ok {
				return false
			}
		}
	}
	return true
}

func isHugePage(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// PodSpec defaults what holds for pods and pod templates alike.
func PodSpec(s *corev1.PodSpec) {
	if s.ServiceAccountName == "" {
		s.ServiceAccountName = s.DeprecatedServiceAccount
	}
	s.DeprecatedServiceAccount = s.ServiceAccountName
	set(&s.DNSPolicy, corev1.DNSClusterFirst)
	set(&s.RestartPolicy, corev1.RestartPolicyAlways)
	set(&s.SchedulerName, corev1.DefaultSchedulerName)
	point(&s.SecurityContext, corev1.PodSecurityContext{})
	point(&s.TerminationGracePeriodSeconds, int64(corev1.DefaultTerminationGracePeriodSeconds))
	for i := range s.Volumes {
		volume(&s.Volumes[i])
	}
	for i := range s.InitContainers {
		container(&s.InitContainers[i])
	}
	for i := range s.Containers {
		container(&s.Containers[i])
	}
	for i := range s.EphemeralContainers {
		c := corev1.Container(s.EphemeralContainers[i].EphemeralContainerCommon)
		container(&c)
		s.EphemeralContainers[i].EphemeralContainerCommon = corev1.EphemeralContainerCommon(c)
	}
	resourceList(s.Overhead)
	if s.Resources != nil {
		requirements(s.Resources)
	}
}

// PodTemplate defaults the pod spec within a template.
func PodTemplate(t *corev1.PodTemplate) { PodSpec(&t.Template.Spec) }
