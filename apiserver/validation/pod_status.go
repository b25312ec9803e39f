package validation

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

const (
	notNegative   = "must be a non-negative integer"
	deadStayDead  = "may not be transitioned to non-terminated state"
	onePerFamily  = "may specify no more than one IP for each IP family"
	alreadyBound  = "may not be set on pods that are already bound to a node"
	bothOrNeither = "podIP and podIPs must either both be set or both be unset"
)

// PodStatusUpdate validates what a node reports of a pod.
func PodStatusUpdate(pod, old *corev1.Pod) field.ErrorList {
	m := metaUpdate(&pod.ObjectMeta, &old.ObjectMeta)
	p := &m
	annotationChanges(p, pod, old)
	path, s, had := field.NewPath("status"), &pod.Status, &old.Status
	for i, c := range s.Conditions {
		at := path.Child("conditions").Index(i)
		if c.ObservedGeneration < 0 {
			p.invalid(at.Child("observedGeneration"), c.ObservedGeneration, notNegative)
		}
		p.check(at.Child("Type"), string(c.Type), validation.IsQualifiedName)
	}
	p.forbid(path.Child("nodeName"), pod.Spec.NodeName != old.Spec.NodeName, "may not be changed directly")
	if at := path.Child("nominatedNodeName"); s.NominatedNodeName != had.NominatedNodeName && s.NominatedNodeName != "" {
		p.name(at, s.NominatedNodeName, apimachinery.NameIsDNSSubdomain)
		p.forbid(at, old.Spec.NodeName != "", alreadyBound)
	}
	if s.ObservedGeneration < 0 {
		p.invalid(path.Child("observedGeneration"), s.ObservedGeneration, notNegative)
	}
	p.immutable(path.Child("qosClass"), s.QOSClass, had.QOSClass)
	spec := &old.Spec
	staysDead(p, path.Child("containerStatuses"), s.ContainerStatuses, had.ContainerStatuses, mayRestart(spec, spec.Containers))
	staysDead(p, path.Child("initContainerStatuses"), s.InitContainerStatuses, had.InitContainerStatuses, mayRestart(spec, spec.InitContainers))
	staysDead(p, path.Child("ephemeralContainerStatuses"), s.EphemeralContainerStatuses, had.EphemeralContainerStatuses,
		func(string, int32) bool { return false })
	claimStatuses(p, path.Child("resourceClaimStatuses"), s.ResourceClaimStatuses, pod.Spec.ResourceClaims)
	extendedClaim(p, path.Child("extendedResourceClaimStatus"), s.ExtendedResourceClaimStatus, &pod.Spec)
	podAddresses(p, path.Child("podIPs"), s, had)
	hostAddresses(p, path.Child("hostIPs"), s, had)
	containerUsers(p, path.Child("containerStatuses"), s.ContainerStatuses, pod.Spec.OS)
	containerUsers(p, path.Child("initContainerStatuses"), s.InitContainerStatuses, pod.Spec.OS)
	containerUsers(p, path.Child("ephemeralContainerStatuses"), s.EphemeralContainerStatuses, pod.Spec.OS)
	deviceHealth(p, path.Child("containerStatuses"), s.ContainerStatuses, pod.Spec.Containers, s)
	deviceHealth(p, path.Child("initContainerStatuses"), s.InitContainerStatuses, pod.Spec.InitContainers, s)
	for i, c := range s.EphemeralContainerStatuses {
		p.forbid(path.Child("ephemeralContainerStatuses").Index(i).Child("allocatedResourcesStatus"),
			len(c.AllocatedResourcesStatus) > 0, "must not be specified in container status")
	}
	return p.list
}

// staysDead refuses that a container which ended for good comes back.
func staysDead(p *problems, path *field.Path, now, before []corev1.ContainerStatus, restarts func(name string, exit int32) bool) {
	for i, was := range before {
		if was.State.Terminated == nil {
			continue
		}
		lives := slices.ContainsFunc(now, func(s corev1.ContainerStatus) bool {
			return s.Name == was.Name && s.State.Terminated == nil
		})
		p.forbid(path.Index(i).Child("state"), lives && !restarts(was.Name, was.State.Terminated.ExitCode), deadStayDead)
	}
}

// mayRestart says which containers of a list may come back: by their own
// rules, their own policy, or else the pod's.
func mayRestart(s *corev1.PodSpec, list []corev1.Container) func(string, int32) bool {
	all := false // a rule of any container may restart all of them
	eachContainer(s, nil, func(c *corev1.Container, _ *field.Path) {
		all = all || slices.ContainsFunc(c.RestartPolicyRules, func(r corev1.ContainerRestartRule) bool {
			return r.Action == corev1.ContainerRestartRuleActionRestartAllContainers
		})
	})
	return func(name string, exit int32) bool {
		if all {
			return true
		}
		at := slices.IndexFunc(list, func(c corev1.Container) bool { return c.Name == name })
		return at >= 0 && containerRestarts(s.RestartPolicy, &list[at], exit)
	}
}

func containerRestarts(pod corev1.RestartPolicy, c *corev1.Container, exit int32) bool {
	for _, rule := range c.RestartPolicyRules {
		if rule.ExitCodes == nil {
			continue
		}
		in := slices.Contains(rule.ExitCodes.Values, exit)
		if in == (rule.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn) && rule.Action == corev1.ContainerRestartRuleActionRestart {
			return true
		}
	}
	policy := pod
	if c.RestartPolicy != nil {
		policy = corev1.RestartPolicy(*c.RestartPolicy)
	}
	return policy == corev1.RestartPolicyAlways || policy == corev1.RestartPolicyOnFailure && exit != 0
}

func podAddresses(p *problems, path *field.Path, s, had *corev1.PodStatus) {
	var now, before []string
	for _, ip := range s.PodIPs {
		now = append(now, ip.IP)
	}
	for _, ip := range had.PodIPs {
		before = append(before, ip.IP)
	}
	addresses(p, path, now, before, printed(s.PodIPs))
	switch {
	case (s.PodIP == "") != (len(s.PodIPs) == 0):
		p.invalid(path, printed(s.PodIPs), bothOrNeither)
	case len(s.PodIPs) > 0 && s.PodIP != s.PodIPs[0].IP:
		p.invalid(path.Index(0).Child("ip"), s.PodIPs[0].IP, "must be equal to `podIP`")
	}
}

func hostAddresses(p *problems, path *field.Path, s, had *corev1.PodStatus) {
	if len(s.HostIPs) == 0 {
		return
	}
	if s.HostIP != s.HostIPs[0].IP {
		p.invalid(path.Index(0).Child("ip"), s.HostIPs[0].IP, "must be equal to `hostIP`")
	}
	var now, before []string
	for _, ip := range s.HostIPs {
		now = append(now, ip.IP)
	}
	for _, ip := range had.HostIPs {
		before = append(before, ip.IP)
	}
	addresses(p, path, now, before, printed(s.HostIPs))
}

// addresses demands at most one address of each family.
func addresses(p *problems, path *field.Path, now, before []string, shown any) {
	for i, ip := range now {
		p.ip(path.Index(i), ip, before...)
	}
	if len(now) < 2 {
		return
	}
	dual, err := netutils.IsDualStackIPStrings(now)
	if err != nil {
		p.add(field.InternalError(path, fmt.Errorf("failed to check for dual stack with error:%v", err))) //nolint:errorlint // upstream's wording
	}
	if !dual || len(now) > 2 {
		p.invalid(path, shown, onePerFamily)
	}
}
