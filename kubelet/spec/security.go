package spec

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maskedPaths and readonlyPaths are what the Default procMount hides: the
// documentation of securityContext names no list, container engines agree on
// this one.
func maskedPaths() []string {
	return []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
		"/sys/devices/virtual/powercap",
	}
}

func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// namespaces are the pod's choices, the same for sandbox and containers.
func namespaces(pod *corev1.Pod) *runtimeapi.NamespaceOption {
	o := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	if pod.Spec.HostNetwork {
		o.Network = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		o.Ipc = runtimeapi.NamespaceMode_NODE
	}
	if s := pod.Spec.ShareProcessNamespace; s != nil && *s {
		o.Pid = runtimeapi.NamespaceMode_POD
	}
	if pod.Spec.HostPID {
		o.Pid = runtimeapi.NamespaceMode_NODE
	}
	return o
}

// seccomp renders a profile; the container's wins over the pod's, none is
// unconfined.
func seccomp(root string, profiles ...*corev1.SeccompProfile) *runtimeapi.SecurityProfile {
	for _, p := range profiles {
		if p == nil {
			continue
		}
		switch p.Type {
		case corev1.SeccompProfileTypeRuntimeDefault:
			return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
		case corev1.SeccompProfileTypeLocalhost:
			if p.LocalhostProfile != nil {
				return &runtimeapi.SecurityProfile{
					ProfileType:  runtimeapi.SecurityProfile_Localhost,
					LocalhostRef: filepath.Join(root, filepath.Clean("/"+*p.LocalhostProfile)),
				}
			}
		default:
		}
		break
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
}

func apparmor(profiles ...*corev1.AppArmorProfile) *runtimeapi.SecurityProfile {
	for _, p := range profiles {
		if p == nil {
			continue
		}
		switch p.Type {
		case corev1.AppArmorProfileTypeUnconfined:
			return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
		case corev1.AppArmorProfileTypeLocalhost:
			return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: *p.LocalhostProfile}
		default:
			return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
		}
	}
	return nil
}

func selinux(options ...*corev1.SELinuxOptions) *runtimeapi.SELinuxOption {
	for _, o := range options {
		if o != nil {
			return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
		}
	}
	return nil
}

func int64Value(p *int64) *runtimeapi.Int64Value {
	if p == nil {
		return nil
	}
	return &runtimeapi.Int64Value{Value: *p}
}

func first[T any](list ...*T) *T {
	for _, p := range list {
		if p != nil {
			return p
		}
	}
	return nil
}

// ImageUser is the user that an image names: an id or a name.
type ImageUser struct {
	UID  *int64
	Name string
}

// errRoot is what runAsNonRoot says of a root user.
var errRoot = errors.New("container has runAsNonRoot and image will run as root")

// containerSecurity renders the container's security context over its pod's.
func containerSecurity(pod *corev1.Pod, c *corev1.Container, user ImageUser, root string) (*runtimeapi.LinuxContainerSecurityContext, error) {
	p, sc := pod.Spec.SecurityContext, c.SecurityContext
	if p == nil {
		p = &corev1.PodSecurityContext{}
	}
	if sc == nil {
		sc = &corev1.SecurityContext{}
	}
	out := &runtimeapi.LinuxContainerSecurityContext{
		NamespaceOptions:   namespaces(pod),
		RunAsUser:          int64Value(first(sc.RunAsUser, p.RunAsUser)),
		RunAsGroup:         int64Value(first(sc.RunAsGroup, p.RunAsGroup)),
		Seccomp:            seccomp(root, sc.SeccompProfile, p.SeccompProfile),
		Apparmor:           apparmor(sc.AppArmorProfile, p.AppArmorProfile),
		SelinuxOptions:     selinux(sc.SELinuxOptions, p.SELinuxOptions),
		Privileged:         sc.Privileged != nil && *sc.Privileged,
		ReadonlyRootfs:     sc.ReadOnlyRootFilesystem != nil && *sc.ReadOnlyRootFilesystem,
		NoNewPrivs:         sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation,
		SupplementalGroups: groups(p),
	}
	if p.SupplementalGroupsPolicy != nil && *p.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict {
		out.SupplementalGroupsPolicy = runtimeapi.SupplementalGroupsPolicy_Strict
	}
	if out.RunAsUser == nil {
		out.RunAsUser, out.RunAsUsername = int64Value(user.UID), user.Name
	}
	if sc.ProcMount == nil || *sc.ProcMount == corev1.DefaultProcMount {
		out.MaskedPaths, out.ReadonlyPaths = maskedPaths(), readonlyPaths()
	}
	if caps := sc.Capabilities; caps != nil {
		out.Capabilities = &runtimeapi.Capability{AddCapabilities: capNames(caps.Add), DropCapabilities: capNames(caps.Drop)}
	}
	if nonRoot := first(sc.RunAsNonRoot, p.RunAsNonRoot); nonRoot != nil && *nonRoot {
		switch {
		case out.RunAsUser != nil && out.RunAsUser.Value == 0 && first(sc.RunAsUser, p.RunAsUser) != nil:
			return nil, errors.New("container's runAsUser breaks non-root policy")
		case out.RunAsUser != nil && out.RunAsUser.Value == 0, out.RunAsUser == nil && out.RunAsUsername == "":
			return nil, errRoot
		case out.RunAsUser == nil:
			return nil, fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root", user.Name)
		}
	}
	return out, nil
}

func groups(p *corev1.PodSecurityContext) []int64 {
	out := append([]int64{}, p.SupplementalGroups...)
	if p.FSGroup != nil {
		out = append(out, *p.FSGroup)
	}
	return out
}

func capNames(list []corev1.Capability) []string {
	out := make([]string, len(list))
	for i, c := range list {
		out[i] = strings.TrimPrefix(string(c), "CAP_")
	}
	return out
}
