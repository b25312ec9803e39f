package spec

import (
	"maps"
	"path/filepath"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skein.dev/skein/kubelet/cri"
)

// Node is what rendering needs to know of the node.
type Node struct {
	Name        string
	Resolver    Resolver
	CgroupRoot  string
	Unified     bool  // cgroup v2
	Memory      int64 // capacity in bytes
	LogDir      string
	SeccompRoot string
}

// PodLogDir is the directory of a pod's container logs.
func (n Node) PodLogDir(pod *corev1.Pod) string {
	return filepath.Join(n.LogDir, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// Sandbox renders the pod's sandbox.
func Sandbox(pod *corev1.Pod, n Node, attempt int) *runtimeapi.PodSandboxConfig {
	cfg := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{
			Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: uint32(attempt),
		},
		Labels:       podLabels(pod, n.Name),
		Annotations:  map[string]string{},
		LogDirectory: n.PodLogDir(pod),
		DnsConfig:    DNS(pod, n.Resolver),
		Linux:        linuxSandbox(pod, n),
	}
	maps.Copy(cfg.Annotations, pod.Annotations)
	cfg.Annotations[cri.AnnotationGrace] = grace(pod)
	if !pod.Spec.HostNetwork {
		var fqdn string
		cfg.Hostname, fqdn = Hostname(pod, n.Resolver.Domain)
		if s := pod.Spec.SetHostnameAsFQDN; s != nil && *s && fqdn != "" {
			cfg.Hostname = fqdn
		}
		cfg.PortMappings = portMappings(pod)
	}
	return cfg
}

func grace(pod *corev1.Pod) string {
	if g := pod.Spec.TerminationGracePeriodSeconds; g != nil {
		return strconv.FormatInt(*g, 10)
	}
	return "30"
}

func podLabels(pod *corev1.Pod, node string) map[string]string {
	l := map[string]string{}
	maps.Copy(l, pod.Labels)
	l[cri.LabelPodName], l[cri.LabelPodNamespace], l[cri.LabelPodUID] = pod.Name, pod.Namespace, string(pod.UID)
	l[cri.LabelNode] = node
	return l
}

func portMappings(pod *corev1.Pod) []*runtimeapi.PortMapping {
	var out []*runtimeapi.PortMapping
	for i := range pod.Spec.Containers {
		for _, p := range pod.Spec.Containers[i].Ports {
			m := &runtimeapi.PortMapping{ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIp: p.HostIP}
			switch p.Protocol {
			case corev1.ProtocolUDP:
				m.Protocol = runtimeapi.Protocol_UDP
			case corev1.ProtocolSCTP:
				m.Protocol = runtimeapi.Protocol_SCTP
			default:
			}
			out = append(out, m)
		}
	}
	return out
}

func linuxSandbox(pod *corev1.Pod, n Node) *runtimeapi.LinuxPodSandboxConfig {
	sc := &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(pod),
		Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
		Privileged:       privileged(pod),
	}
	out := &runtimeapi.LinuxPodSandboxConfig{
		CgroupParent: CgroupParent(n.CgroupRoot, pod), SecurityContext: sc,
		Sysctls: map[string]string{}, Resources: PodResources(pod),
	}
	// The pause program needs no profile of its own; a pod that asks for
	// none must also start where the runtime was built without seccomp.
	sc.Seccomp = seccomp(n.SeccompRoot)
	p := pod.Spec.SecurityContext
	if p == nil {
		return out
	}
	sc.Seccomp = seccomp(n.SeccompRoot, p.SeccompProfile)
	sc.Apparmor = apparmor(p.AppArmorProfile)
	sc.SelinuxOptions = selinux(p.SELinuxOptions)
	sc.RunAsUser, sc.RunAsGroup = int64Value(p.RunAsUser), int64Value(p.RunAsGroup)
	if sc.RunAsUser == nil {
		sc.RunAsGroup = nil // a group alone the runtime refuses
	}
	sc.SupplementalGroups = groups(p)
	for _, s := range p.Sysctls {
		out.Sysctls[s.Name] = s.Value
	}
	return out
}

// privileged reports whether any container is: then the sandbox must be.
func privileged(pod *corev1.Pod) bool {
	for c := range Containers(pod) {
		if s := c.SecurityContext; s != nil && s.Privileged != nil && *s.Privileged {
			return true
		}
	}
	return false
}
