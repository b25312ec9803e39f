package validation

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	notOnWindows     = "cannot be set for a windows pod"
	notOnLinux       = "windows options cannot be set for a linux pod"
	maxProfilePath   = 4095
	maxSysctl        = 253
	sysctlFormat     = `^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$`
	sysctlIPCOutside = "may not be specified when 'hostIPC' is true"
	sysctlNetOutside = "may not be specified when 'hostNetwork' is true"
)

func (p *problems) userID(path *field.Path, id *int64) {
	if id != nil {
		p.invalid(path, *id, validation.IsValidUserID(*id)...)
	}
}

func (p *problems) groupID(path *field.Path, id *int64) {
	if id != nil {
		p.invalid(path, *id, validation.IsValidGroupID(*id)...)
	}
}

func (c *podCheck) checkPodSecurity(spec *field.Path) {
	path, s := spec.Child("securityContext"), c.spec.SecurityContext
	if s != nil {
		c.groupID(path.Child("fsGroup"), s.FSGroup)
		c.userID(path.Child("runAsUser"), s.RunAsUser)
		c.groupID(path.Child("runAsGroup"), s.RunAsGroup)
		for i := range s.SupplementalGroups {
			c.groupID(path.Child("supplementalGroups").Index(i), &s.SupplementalGroups[i])
		}
		c.checkSysctls(path.Child("sysctls"), s.Sysctls)
		if s.FSGroupChangePolicy != nil {
			oneOf(c.problems, path.Child("fsGroupChangePolicy"), *s.FSGroupChangePolicy,
				corev1.FSGroupChangeAlways, corev1.FSGroupChangeOnRootMismatch)
		}
		c.checkSeccomp(path.Child("seccompProfile"), s.SeccompProfile)
		c.checkWindowsOptions(path.Child("windowsOptions"), s.WindowsOptions)
		c.checkAppArmor(path.Child("appArmorProfile"), s.AppArmorProfile)
		if s.SupplementalGroupsPolicy != nil {
			oneOf(c.problems, path.Child("supplementalGroupsPolicy"), *s.SupplementalGroupsPolicy,
				corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)
		}
		if s.SELinuxChangePolicy != nil {
			oneOf(c.problems, path.Child("seLinuxChangePolicy"), *s.SELinuxChangePolicy,
				corev1.SELinuxChangePolicyMountOption, corev1.SELinuxChangePolicyRecursive)
		}
	}
	if deref(c.spec.ShareProcessNamespace) && c.spec.HostPID {
		c.invalid(spec.Child("shareProcessNamespace"), true, "ShareProcessNamespace and HostPID cannot both be enabled")
	}
}

func (c *podCheck) checkSysctls(path *field.Path, list []corev1.Sysctl) {
	seen := map[string]bool{}
	format := regexp.MustCompile(sysctlFormat)
	for i, s := range list {
		at := path.Index(i).Child("name")
		switch {
		case s.Name == "":
			c.required(at, "")
		case !format.MatchString(s.Name) || len(s.Name) > maxSysctl:
			c.invalid(at, s.Name, fmt.Sprintf("must have at most %d characters and match regex %s", maxSysctl, sysctlFormat))
		case seen[s.Name]:
			c.duplicate(at, s.Name)
		}
		seen[s.Name] = true
		if complaint := hostSysctl(c.spec, s.Name); complaint != "" && !c.kept.hostSysctls {
			c.invalid(at, s.Name, complaint)
		}
	}
}

// hostSysctl refuses the settings of a namespace that the pod shares with its
// host.
func hostSysctl(s *corev1.PodSpec, name string) string {
	// The first separator decides what separates: kernel.shm or kernel/shm.
	if at := strings.IndexAny(name, "./"); at >= 0 && name[at] == '/' {
		name = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			default:
				return r
			}
		}, name)
	}
	ipc := name == "kernel.sem" || name == "kernel.msgmax" || strings.HasPrefix(name, "kernel.shm") ||
		strings.HasPrefix(name, "kernel.msg") || strings.HasPrefix(name, "fs.mqueue.")
	switch {
	case s.HostNetwork && strings.HasPrefix(name, "net."):
		return sysctlNetOutside
	case s.HostIPC && ipc:
		return sysctlIPCOutside
	default:
		return ""
	}
}

func (c *podCheck) checkSeccomp(path *field.Path, s *corev1.SeccompProfile) {
	if s == nil {
		return
	}
	if s.Type == "" {
		c.required(path.Child("type"), "type is required when seccompProfile is set")
	} else {
		oneOf(c.problems, path.Child("type"), s.Type, corev1.SeccompProfileTypeLocalhost,
			corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)
	}
	at := path.Child("localhostProfile")
	switch local := s.Type == corev1.SeccompProfileTypeLocalhost; {
	case local && s.LocalhostProfile == nil:
		c.required(at, "must be set when seccomp type is Localhost")
	case local:
		c.descending(at, *s.LocalhostProfile)
	case s.LocalhostProfile != nil:
		c.invalid(at, printed(s), "can only be set when seccomp type is Localhost")
	}
}

func (c *podCheck) checkAppArmor(path *field.Path, a *corev1.AppArmorProfile) {
	if a == nil {
		return
	}
	const need = "must be set when AppArmor type is Localhost"
	at := path.Child("localhostProfile")
	switch a.Type {
	case corev1.AppArmorProfileTypeLocalhost:
		if a.LocalhostProfile == nil {
			c.required(at, need)
			return
		}
		trimmed := strings.TrimSpace(*a.LocalhostProfile)
		if trimmed != *a.LocalhostProfile {
			c.invalid(at, *a.LocalhostProfile, "must not be padded with whitespace")
		} else if trimmed == "" {
			c.required(at, need)
		}
		if len(*a.LocalhostProfile) > maxProfilePath {
			c.add(field.TooLong(at, "", maxProfilePath))
		}
	case corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined:
		if a.LocalhostProfile != nil {
			c.invalid(at, a.LocalhostProfile, "can only be set when AppArmor type is Localhost")
		}
	case "":
		c.required(path.Child("type"), "type is required when appArmorProfile is set")
	default:
		oneOf(c.problems, path.Child("type"), a.Type, corev1.AppArmorProfileTypeLocalhost,
			corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined)
	}
}

func (c *podCheck) checkSecurity(path *field.Path, s *corev1.SecurityContext) {
	if s == nil {
		return
	}
	c.userID(path.Child("runAsUser"), s.RunAsUser)
	c.groupID(path.Child("runAsGroup"), s.RunAsGroup)
	if s.ProcMount != nil {
		at := path.Child("procMount")
		oneOf(c.problems, at, *s.ProcMount, corev1.DefaultProcMount, corev1.UnmaskedProcMount)
		if c.hostUsers() && *s.ProcMount == corev1.UnmaskedProcMount {
			c.invalid(at, *s.ProcMount, "`hostUsers` must be false to use `Unmasked`")
		}
	}
	c.checkSeccomp(path.Child("seccompProfile"), s.SeccompProfile)
	if s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation {
		if deref(s.Privileged) {
			c.invalid(path, printed(s), "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
		}
		if s.Capabilities != nil && !c.kept.sysAdminWithoutEscalation {
			for _, added := range s.Capabilities.Add {
				if added == "CAP_SYS_ADMIN" {
					c.invalid(path, printed(s), "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN")
				}
			}
		}
	}
	c.checkWindowsOptions(path.Child("windowsOptions"), s.WindowsOptions)
	c.checkAppArmor(path.Child("appArmorProfile"), s.AppArmorProfile)
}

// checkOS refuses what the pod's operating system does not have.
func (c *podCheck) checkOS(path *field.Path) {
	if c.spec.OS == nil {
		return
	}
	switch c.spec.OS.Name {
	case "":
		c.required(path.Child("os", "name"), "")
	case corev1.Linux:
		c.checkLinux(path)
	case corev1.Windows:
		c.checkWindows(path)
	default:
		oneOf(c.problems, path.Child("os"), c.spec.OS.Name, corev1.Linux, corev1.Windows)
	}
}

func (c *podCheck) checkLinux(path *field.Path) {
	if s := c.spec.SecurityContext; s != nil {
		c.forbid(path.Child("securityContext", "windowsOptions"), s.WindowsOptions != nil, notOnLinux)
	}
	eachContainer(c.spec, path, func(ctr *corev1.Container, at *field.Path) {
		if s := ctr.SecurityContext; s != nil {
			c.forbid(at.Child("securityContext", "windowsOptions"), s.WindowsOptions != nil, notOnLinux)
		}
	})
}

func (c *podCheck) checkWindows(path *field.Path) {
	forbid := func(at *field.Path, name string, when bool) { c.forbid(at.Child(name), when, notOnWindows) }
	if s := c.spec.SecurityContext; s != nil {
		at := path.Child("securityContext")
		forbid(at, "appArmorProfile", s.AppArmorProfile != nil)
		forbid(at, "seLinuxOptions", s.SELinuxOptions != nil)
		forbid(at, "seccompProfile", s.SeccompProfile != nil)
		forbid(at, "fsGroup", s.FSGroup != nil)
		forbid(at, "fsGroupChangePolicy", s.FSGroupChangePolicy != nil)
		forbid(at, "sysctls", len(s.Sysctls) > 0)
		forbid(at, "runAsUser", s.RunAsUser != nil)
		forbid(at, "runAsGroup", s.RunAsGroup != nil)
		forbid(at, "supplementalGroups", s.SupplementalGroups != nil)
		forbid(at, "supplementalGroupsPolicy", s.SupplementalGroupsPolicy != nil)
		forbid(at, "seLinuxChangePolicy", s.SELinuxChangePolicy != nil)
	}
	forbid(path, "hostUsers", c.spec.HostUsers != nil)
	forbid(path, "hostPID", c.spec.HostPID)
	forbid(path, "hostIPC", c.spec.HostIPC)
	forbid(path, "shareProcessNamespace", c.spec.ShareProcessNamespace != nil)
	eachContainer(c.spec, path, func(ctr *corev1.Container, at *field.Path) {
		s := ctr.SecurityContext
		if s == nil {
			return
		}
		at = at.Child("securityContext")
		forbid(at, "appArmorProfile", s.AppArmorProfile != nil)
		forbid(at, "seLinuxOptions", s.SELinuxOptions != nil)
		forbid(at, "seccompProfile", s.SeccompProfile != nil)
		forbid(at, "capabilities", s.Capabilities != nil)
		forbid(at, "readOnlyRootFilesystem", s.ReadOnlyRootFilesystem != nil)
		forbid(at, "privileged", s.Privileged != nil)
		forbid(at, "allowPrivilegeEscalation", s.AllowPrivilegeEscalation != nil)
		forbid(at, "procMount", s.ProcMount != nil)
		forbid(at, "runAsUser", s.RunAsUser != nil)
		forbid(at, "runAsGroup", s.RunAsGroup != nil)
	})
}
