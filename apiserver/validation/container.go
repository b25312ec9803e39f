package validation

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	onlyForSidecars  = "may not be set for init containers without restartPolicy=Always"
	notForEphemeral  = "cannot be set for an Ephemeral Container"
	maxRestartRules  = 20
	maxExitCodes     = 255
	restartRulesName = "restartPolicyRules"
	rulesNeedPolicy  = "must specify restartPolicy when restart rules are used"
)

func (c *podCheck) checkContainers(path *field.Path) {
	if len(c.spec.Containers) == 0 {
		c.required(path, "")
		return
	}
	names := map[string]bool{}
	for i := range c.spec.Containers {
		at, ctr := path.Index(i), &c.spec.Containers[i]
		c.checkContainer(at, ctr)
		if names[ctr.Name] {
			c.duplicate(at.Child("name"), ctr.Name)
		}
		names[ctr.Name] = true
		c.checkLife(at, ctr)
		c.checkRestartRules(at, ctr)
	}
	c.checkHostPortConflicts(path, c.spec.Containers)
}

// checkLife validates what only long-running containers have.
func (c *podCheck) checkLife(path *field.Path, ctr *corev1.Container) {
	if ctr.Lifecycle != nil {
		c.checkLifecycle(path.Child("lifecycle"), ctr.Lifecycle)
	}
	c.checkProbe(path.Child("livenessProbe"), ctr.LivenessProbe, true)
	c.checkProbe(path.Child("readinessProbe"), ctr.ReadinessProbe, false)
	c.checkProbe(path.Child("startupProbe"), ctr.StartupProbe, true)
}

func sidecar(ctr *corev1.Container) bool {
	return ctr.RestartPolicy != nil && *ctr.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func (c *podCheck) checkInitContainers(path *field.Path) {
	names := map[string]bool{}
	for i := range c.spec.Containers {
		names[c.spec.Containers[i].Name] = true
	}
	for i := range c.spec.InitContainers {
		at, ctr := path.Index(i), &c.spec.InitContainers[i]
		c.checkContainer(at, ctr)
		if ctr.RestartPolicy == nil && len(ctr.RestartPolicyRules) > 0 {
			c.required(at.Child("restartPolicy"), rulesNeedPolicy)
		} else {
			c.checkRestartRules(at, ctr)
		}
		if names[ctr.Name] {
			c.duplicate(at.Child("name"), ctr.Name)
		} else if ctr.Name != "" {
			names[ctr.Name] = true
		}
		c.checkHostPortConflicts(path, []corev1.Container{*ctr})
		if sidecar(ctr) {
			c.checkLife(at, ctr)
			continue
		}
		c.forbid(at.Child("lifecycle"), ctr.Lifecycle != nil, onlyForSidecars)
		c.forbid(at.Child("livenessProbe"), ctr.LivenessProbe != nil, onlyForSidecars)
		c.forbid(at.Child("readinessProbe"), ctr.ReadinessProbe != nil, onlyForSidecars)
		c.forbid(at.Child("startupProbe"), ctr.StartupProbe != nil, onlyForSidecars)
		for j, policy := range ctr.ResizePolicy {
			if policy.RestartPolicy == corev1.RestartContainer && !c.kept.restartingInitResize {
				c.invalid(at.Child("resizePolicy").Index(j).Child("restartPolicy"), policy.RestartPolicy,
					"must not be set to 'RestartContainer' for non-sidecar initContainers")
			}
		}
	}
}

func (p *problems) forbid(path *field.Path, when bool, detail string) {
	if when {
		p.forbidden(path, detail)
	}
}

func (c *podCheck) checkEphemeralContainers(path *field.Path) {
	if len(c.spec.EphemeralContainers) == 0 {
		return
	}
	targets, names := map[string]bool{}, map[string]bool{}
	for _, list := range [][]corev1.Container{c.spec.Containers, c.spec.InitContainers} {
		for i := range list {
			targets[list[i].Name], names[list[i].Name] = true, true
		}
	}
	for i := range c.spec.EphemeralContainers {
		at, e := path.Index(i), &c.spec.EphemeralContainers[i]
		ctr := (*corev1.Container)(&e.EphemeralContainerCommon)
		c.checkContainer(at, ctr)
		c.checkImageSpace(at, ctr)
		if names[e.Name] {
			c.duplicate(at.Child("name"), e.Name)
		}
		names[e.Name] = true
		if e.TargetContainerName != "" && !targets[e.TargetContainerName] {
			c.add(field.NotFound(at.Child("targetContainerName"), e.TargetContainerName))
		}
		c.checkEphemeralFields(at, ctr)
	}
}

// checkEphemeralFields refuses everything on which others could rely.
func (c *podCheck) checkEphemeralFields(path *field.Path, ctr *corev1.Container) {
	forbid := func(name string, when bool) { c.forbid(path.Child(name), when, notForEphemeral) }
	forbid("ports", ctr.Ports != nil)
	forbid("resources", ctr.Resources.Limits != nil || ctr.Resources.Requests != nil || ctr.Resources.Claims != nil)
	forbid("resizePolicy", ctr.ResizePolicy != nil)
	forbid("restartPolicy", ctr.RestartPolicy != nil)
	forbid(restartRulesName, ctr.RestartPolicyRules != nil)
	forbid("livenessProbe", ctr.LivenessProbe != nil)
	forbid("readinessProbe", ctr.ReadinessProbe != nil)
	forbid("startupProbe", ctr.StartupProbe != nil)
	forbid("lifecycle", ctr.Lifecycle != nil)
	for i := range ctr.VolumeMounts {
		at := path.Child("volumeMounts").Index(i)
		c.forbid(at.Child("subPath"), ctr.VolumeMounts[i].SubPath != "", notForEphemeral)
		c.forbid(at.Child("subPathExpr"), ctr.VolumeMounts[i].SubPathExpr != "", notForEphemeral)
	}
}

// checkContainer validates what holds for containers of all sorts.
func (c *podCheck) checkContainer(path *field.Path, ctr *corev1.Container) {
	c.requireFormat(path.Child("name"), ctr.Name, validation.IsDNS1123Label)
	if ctr.Image == "" {
		c.required(path.Child("image"), "")
	}
	requireOneOf(c.problems, path.Child("terminationMessagePolicy"), ctr.TerminationMessagePolicy,
		corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)
	c.checkContainerPorts(path.Child("ports"), ctr.Ports)
	c.checkEnv(path.Child("env"), ctr.Env)
	c.checkEnvFrom(path.Child("envFrom"), ctr.EnvFrom)
	c.checkMounts(path.Child("volumeMounts"), ctr)
	c.checkDevices(path.Child("volumeDevices"), ctr)
	requireOneOf(c.problems, path.Child("imagePullPolicy"), ctr.ImagePullPolicy,
		corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
	c.checkRequirements(path.Child("resources"), &ctr.Resources, containerResourceName)
	c.checkResizePolicy(path.Child("resizePolicy"), ctr.ResizePolicy)
	c.checkSecurity(path.Child("securityContext"), ctr.SecurityContext)
}

func (c *podCheck) checkImageSpace(path *field.Path, ctr *corev1.Container) {
	if ctr.Image != strings.TrimSpace(ctr.Image) {
		c.invalid(path.Child("image"), ctr.Image, "must not have leading or trailing whitespace")
	}
}

func (c *podCheck) checkContainerPorts(path *field.Path, ports []corev1.ContainerPort) {
	names := map[string]bool{}
	for i, port := range ports {
		at := path.Index(i)
		if port.Name != "" {
			complaints := validation.IsValidPortName(port.Name)
			c.invalid(at.Child("name"), port.Name, complaints...)
			if names[port.Name] {
				c.duplicate(at.Child("name"), port.Name)
			}
			names[port.Name] = len(complaints) == 0
		}
		if port.ContainerPort == 0 {
			c.required(at.Child("containerPort"), "")
		} else {
			c.port(at.Child("containerPort"), port.ContainerPort)
		}
		if port.HostPort != 0 {
			c.port(at.Child("hostPort"), port.HostPort)
		}
		protocol(c.problems, at.Child("protocol"), port.Protocol)
	}
}

func (c *podCheck) checkHostPortConflicts(path *field.Path, list []corev1.Container) {
	taken := map[string]bool{}
	for i := range list {
		for j, port := range list[i].Ports {
			if port.HostPort == 0 {
				continue
			}
			key := fmt.Sprintf("%s/%s/%d", port.Protocol, port.HostIP, port.HostPort)
			if taken[key] {
				c.duplicate(path.Index(i).Child("ports").Index(j).Child("hostPort"), key)
			}
			taken[key] = true
		}
	}
}

func (c *podCheck) checkRestartRules(path *field.Path, ctr *corev1.Container) {
	policy, rules := path.Child("restartPolicy"), path.Child(restartRulesName)
	if ctr.RestartPolicy == nil {
		if len(ctr.RestartPolicyRules) > 0 {
			c.required(policy, rulesNeedPolicy)
		}
	} else {
		oneOf(c.problems, policy, *ctr.RestartPolicy, corev1.ContainerRestartPolicyAlways,
			corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)
	}
	if n := len(ctr.RestartPolicyRules); n > maxRestartRules {
		c.add(field.TooMany(rules, n, maxRestartRules))
	}
	for i, rule := range ctr.RestartPolicyRules {
		at := rules.Index(i)
		oneOf(c.problems, at.Child("action"), rule.Action,
			corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)
		codes := at.Child("exitCodes")
		if rule.ExitCodes == nil {
			c.required(codes, "must be specified")
			continue
		}
		oneOf(c.problems, codes.Child("operator"), rule.ExitCodes.Operator,
			corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)
		if n := len(rule.ExitCodes.Values); n > maxExitCodes {
			c.add(field.TooMany(codes.Child("values"), n, maxExitCodes))
		}
	}
}

func (c *podCheck) checkResizePolicy(path *field.Path, list []corev1.ContainerResizePolicy) {
	seen := map[corev1.ResourceName]bool{}
	for i, r := range list {
		if seen[r.ResourceName] {
			c.duplicate(path.Index(i), r.ResourceName)
		}
		seen[r.ResourceName] = true
		requireOneOf(c.problems, path, r.ResourceName, corev1.ResourceCPU, corev1.ResourceMemory)
		requireOneOf(c.problems, path, r.RestartPolicy, corev1.NotRequired, corev1.RestartContainer)
		if c.spec.RestartPolicy == corev1.RestartPolicyNever && r.RestartPolicy != corev1.NotRequired {
			c.invalid(path, r.RestartPolicy, "must be 'NotRequired' when pod `restartPolicy` is 'Never'")
		}
	}
}
