package validation

import (
	"fmt"
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The limits of a resolver's configuration, those of libc.
const (
	maxNameservers  = 3
	maxSearches     = 32
	maxSearchChars  = 2048
	maxHostnameName = 64
)

// podCheck validates one pod spec.
type podCheck struct {
	*problems
	spec *corev1.PodSpec
	// meta is the pod's own metadata, nil for what has none.
	meta *metav1.ObjectMeta
	// isPod is true for a pod, false for a template of pods.
	isPod bool
	// kept is what an older object already had and therefore may keep.
	kept tolerated

	volumes map[string]*corev1.VolumeSource
	claims  map[string]bool
}

func checkPodSpec(p *problems, path *field.Path, s, old *corev1.PodSpec, m *metav1.ObjectMeta, isPod bool) {
	c := &podCheck{problems: p, spec: s, meta: m, isPod: isPod, kept: tolerate(old)}
	c.check(path)
}

// podTemplate validates a template; old is what it replaces, or nil.
func podTemplate(p *problems, path *field.Path, t, old *corev1.PodTemplateSpec) {
	p.labels(path.Child("labels"), t.Labels)
	p.add(apimachinery.ValidateAnnotations(t.Annotations, path.Child("annotations"))...)
	podAnnotations(p, path.Child("annotations"), t.Annotations, &t.Spec)
	var before *corev1.PodSpec
	if old != nil {
		before = &old.Spec
	}
	checkPodSpec(p, path.Child("spec"), &t.Spec, before, nil, false)
	seccompAnnotations(p, path.Child("spec"), &t.ObjectMeta, &t.Spec)
	if len(t.Spec.EphemeralContainers) > 0 {
		p.forbidden(path.Child("spec", "ephemeralContainers"), "ephemeral containers not allowed in pod template")
	}
}

func (c *podCheck) check(path *field.Path) {
	s := c.spec
	if s.TerminationGracePeriodSeconds == nil {
		c.required(path.Child("terminationGracePeriodSeconds"), "")
	}
	c.checkVolumes(path.Child("volumes"))
	c.checkClaims(path.Child("resourceClaims"))
	c.checkContainers(path.Child("containers"))
	c.checkInitContainers(path.Child("initContainers"))
	c.checkEphemeralContainers(path.Child("ephemeralContainers"))
	c.checkPodResources(path)
	c.checkHostPorts(path.Child("containers"))
	requireOneOf(c.problems, path.Child("restartPolicy"), s.RestartPolicy,
		corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	requireOneOf(c.problems, path.Child("dnsPolicy"), s.DNSPolicy,
		corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)
	c.labels(path.Child("nodeSelector"), s.NodeSelector)
	c.checkPodSecurity(path)
	c.checkAffinity(path.Child("affinity"))
	c.checkDNS(path.Child("dnsConfig"))
	c.checkGates(path)
	c.checkSpread(path.Child("topologySpreadConstraints"))
	c.checkWindowsHostProcess(path)
	c.checkHostUsers(path)
	c.checkNames(path)
	c.checkTolerations(path.Child("tolerations"), s.Tolerations)
	for i, a := range s.HostAliases {
		at := path.Child("hostAliases").Index(i)
		c.ip(at.Child("ip"), a.IP)
		for j, name := range a.Hostnames {
			c.problems.check(at.Child("hostnames").Index(j), name, validation.IsDNS1123Subdomain)
		}
	}
	c.checkScheduling(path)
	c.checkOS(path)
	c.checkFileKeys(path)
}

// checkNames validates the fields that hold the name of something.
func (c *podCheck) checkNames(path *field.Path) {
	s := c.spec
	c.checkHostnameOverride(path.Child("hostnameOverride"))
	if s.ServiceAccountName != "" {
		c.name(path.Child("serviceAccountName"), s.ServiceAccountName, apimachinery.ValidateServiceAccountName)
	}
	if s.DeprecatedServiceAccount != s.ServiceAccountName {
		c.invalid(path.Child("deprecatedServiceAccount"), s.DeprecatedServiceAccount,
			fmt.Sprintf("must be the same as serviceAccountName: %q", s.ServiceAccountName))
	}
	if s.NodeName != "" {
		c.name(path.Child("nodeName"), s.NodeName, apimachinery.NameIsDNSSubdomain)
	}
	if n := s.ActiveDeadlineSeconds; n != nil && (*n < 1 || *n > math.MaxInt32) {
		c.invalid(path.Child("activeDeadlineSeconds"), *n, validation.InclusiveRangeError(1, math.MaxInt32))
	}
	if s.Hostname != "" {
		c.problems.check(path.Child("hostname"), s.Hostname, validation.IsDNS1123Label)
	}
	if s.Subdomain != "" {
		c.problems.check(path.Child("subdomain"), s.Subdomain, validation.IsDNS1123Label)
	}
}

func (c *podCheck) checkScheduling(path *field.Path) {
	s := c.spec
	if s.PriorityClassName != "" {
		c.name(path.Child("priorityClassName"), s.PriorityClassName, apimachinery.NameIsDNSSubdomain)
	}
	if s.RuntimeClassName != nil {
		c.name(path.Child("runtimeClassName"), *s.RuntimeClassName, apimachinery.NameIsDNSSubdomain)
	}
	if s.PreemptionPolicy != nil {
		requireOneOf(c.problems, path.Child("preemptionPolicy"), *s.PreemptionPolicy,
			corev1.PreemptLowerPriority, corev1.PreemptNever)
	}
	if s.Overhead != nil {
		c.checkOverhead(path.Child("overhead"))
	}
}

func (c *podCheck) checkHostnameOverride(path *field.Path) {
	name := c.spec.HostnameOverride
	if name == nil {
		return
	}
	if deref(c.spec.SetHostnameAsFQDN) {
		c.forbidden(path, "may not be specified when setHostnameAsFQDN is true")
	}
	if c.spec.HostNetwork {
		c.forbidden(path, "may not be specified when hostNetwork is true")
	}
	if len(*name) > maxHostnameName {
		c.add(field.TooLong(path, "", maxHostnameName))
	}
	c.problems.check(path, *name, validation.IsDNS1123Subdomain)
}

// checkHostPorts demands that a pod in the host's network publish its ports
// under their own numbers.
func (c *podCheck) checkHostPorts(path *field.Path) {
	if !c.spec.HostNetwork {
		return
	}
	for i := range c.spec.Containers {
		for j, port := range c.spec.Containers[i].Ports {
			if port.HostPort != port.ContainerPort && (c.isPod || port.HostPort != 0) {
				c.invalid(path.Index(i).Child("ports").Index(j).Child("hostPort"), port.HostPort,
					"must match `containerPort` when `hostNetwork` is true")
			}
		}
	}
}

func (c *podCheck) checkDNS(path *field.Path) {
	d := c.spec.DNSConfig
	if c.spec.DNSPolicy == corev1.DNSNone {
		if d == nil {
			c.required(path, "must provide `dnsConfig` when `dnsPolicy` is None")
			return
		}
		if len(d.Nameservers) == 0 {
			c.required(path.Child("nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None")
			return
		}
	}
	if d == nil {
		return
	}
	at := path.Child("nameservers")
	if len(d.Nameservers) > maxNameservers {
		c.invalid(at, d.Nameservers, fmt.Sprintf("must not have more than %d nameservers", maxNameservers))
	}
	for i, ip := range d.Nameservers {
		c.ip(at.Index(i), ip)
	}
	at = path.Child("searches")
	if len(d.Searches) > maxSearches {
		c.invalid(at, d.Searches, fmt.Sprintf("must not have more than %d search paths", maxSearches))
	}
	if len(strings.Join(d.Searches, " ")) > maxSearchChars {
		c.invalid(at, d.Searches, fmt.Sprintf("must not have more than %d characters (including spaces) in the search list", maxSearchChars))
	}
	for i, s := range d.Searches {
		if s != "." {
			c.problems.check(at.Index(i), strings.TrimSuffix(s, "."), validation.IsDNS1123SubdomainWithUnderscore)
		}
	}
	for i, o := range d.Options {
		if o.Name == "" {
			c.required(path.Child("options").Index(i), "must not be empty")
		}
	}
}

func (c *podCheck) checkGates(path *field.Path) {
	for i, g := range c.spec.ReadinessGates {
		c.problems.check(path.Child("readinessGates").Index(i).Child("conditionType"), string(g.ConditionType), validation.IsQualifiedName)
	}
	seen := map[string]bool{}
	for i, g := range c.spec.SchedulingGates {
		at := path.Child("schedulingGates").Index(i)
		c.problems.check(at, g.Name, validation.IsQualifiedName)
		if seen[g.Name] {
			c.duplicate(at, g.Name)
		}
		seen[g.Name] = true
	}
}

// checkHostUsers keeps pods of a user namespace out of the host's other ones.
func (c *podCheck) checkHostUsers(path *field.Path) {
	const why = "when `hostUsers` is false"
	if c.hostUsers() {
		return
	}
	if c.spec.HostNetwork && !c.kept.hostNetworkInUserNamespace {
		c.forbidden(path.Child("hostNetwork"), why)
	}
	if c.spec.HostPID {
		c.forbidden(path.Child("HostPID"), why)
	}
	if c.spec.HostIPC {
		c.forbidden(path.Child("HostIPC"), why)
	}
	if c.kept.volumeDevicesInUserNamespace {
		return
	}
	eachContainer(c.spec, path, func(ctr *corev1.Container, at *field.Path) {
		if len(ctr.VolumeDevices) > 0 {
			c.forbidden(at.Child("volumeDevices"), why)
		}
	})
}

func (c *podCheck) hostUsers() bool { return c.spec.HostUsers == nil || *c.spec.HostUsers }

// eachContainer visits init, ordinary and ephemeral containers, in this order.
func eachContainer(s *corev1.PodSpec, path *field.Path, visit func(*corev1.Container, *field.Path)) {
	for i := range s.InitContainers {
		visit(&s.InitContainers[i], path.Child("initContainers").Index(i))
	}
	for i := range s.Containers {
		visit(&s.Containers[i], path.Child("containers").Index(i))
	}
	for i := range s.EphemeralContainers {
		visit((*corev1.Container)(&s.EphemeralContainers[i].EphemeralContainerCommon), path.Child("ephemeralContainers").Index(i))
	}
}

// checkFileKeys demands that environment files lie in emptyDir volumes.
func (c *podCheck) checkFileKeys(path *field.Path) {
	eachContainer(c.spec, path, func(ctr *corev1.Container, at *field.Path) {
		for i, e := range ctr.Env {
			if e.ValueFrom == nil || e.ValueFrom.FileKeyRef == nil {
				continue
			}
			name := e.ValueFrom.FileKeyRef.VolumeName
			where := at.Child("env").Index(i).Child("valueFrom", "fileKeyRef", "volumeName")
			source := sourceNamed(c.spec, name)
			if source == nil {
				c.add(field.NotFound(where, name))
			} else if source.EmptyDir == nil {
				c.invalid(where, name, "referenced volume must be of type emptyDir")
			}
		}
	})
}

func sourceNamed(s *corev1.PodSpec, name string) *corev1.VolumeSource {
	for i := len(s.Volumes) - 1; i >= 0; i-- {
		if s.Volumes[i].Name == name {
			return &s.Volumes[i].VolumeSource
		}
	}
	return nil
}
