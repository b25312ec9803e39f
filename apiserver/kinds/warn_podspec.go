package kinds

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// warnTemplateChange warns of a template that is new or changed.
func warnTemplateChange(changed bool, t, _ *corev1.PodTemplateSpec) []string {
	if !changed {
		return nil
	}
	return warnPodSpec(&t.ObjectMeta, &t.Spec, field.NewPath("spec", "template"))
}

func templatePath() *field.Path { return field.NewPath("template") }

// podWarner gathers what is valid in a pod spec but hardly meant.
type podWarner struct {
	path *field.Path // of what has metadata and spec; nil for a pod
	list []string
}

func warnPodSpec(m *metav1.ObjectMeta, s *corev1.PodSpec, path *field.Path) []string {
	w := &podWarner{path: path}
	w.selectors(s)
	for _, old := range []struct{ key, instead string }{
		{"scheduler.alpha.kubernetes.io/critical-pod", `non-functional in v1.16+; use the "priorityClassName" field instead`},
		{"security.alpha.kubernetes.io/sysctls", `non-functional in v1.11+; use the "sysctls" field instead`},
		{"security.alpha.kubernetes.io/unsafe-sysctls", `non-functional in v1.11+; use the "sysctls" field instead`},
	} {
		if _, ok := m.Annotations[old.key]; ok {
			w.at(w.path.Child("metadata", "annotations").Key(old.key), old.instead)
		}
	}
	w.volumes(s.Volumes)
	w.paths(s.Volumes)
	w.duplicates(s)
	w.fractions(w.spec("overhead"), s.Overhead)
	w.seccomp(m, s)
	names := map[string]*field.Path{}
	w.each(s, func(c *corev1.Container, at *field.Path) {
		w.fractions(at.Child("resources", "limits"), c.Resources.Limits)
		w.fractions(at.Child("resources", "requests"), c.Resources.Requests)
		w.env(at.Child("env"), c.Env)
	})
	w.ports(s)
	w.each(s, func(c *corev1.Container, at *field.Path) {
		for i, port := range c.Ports {
			here := at.Child("ports").Index(i)
			if first := names[port.Name]; port.Name != "" && first != nil {
				w.at(here, fmt.Sprintf("duplicate port name %q with %s, services and probes that select ports by name will use %s", port.Name, first, first))
			} else if port.Name != "" {
				names[port.Name] = here
			}
		}
	})
	if n := s.TerminationGracePeriodSeconds; n != nil && *n < 0 {
		w.at(w.spec("terminationGracePeriodSeconds"), "must be >= 0; negative values are invalid and will be treated as 1")
	}
	w.affinity(s.Affinity)
	if s.DNSConfig != nil {
		for i, ip := range s.DNSConfig.Nameservers {
			w.list = append(w.list, validation.GetWarningsForIP(w.spec("dnsConfig", "nameservers").Index(i), ip)...)
		}
	}
	for i, a := range s.HostAliases {
		w.list = append(w.list, validation.GetWarningsForIP(w.spec("hostAliases").Index(i).Child("ip"), a.IP)...)
	}
	return w.list
}

func (w *podWarner) at(path *field.Path, text string) {
	w.list = append(w.list, fmt.Sprintf("%s: %s", path, text))
}

func (w *podWarner) spec(name string, more ...string) *field.Path {
	return w.path.Child("spec", append([]string{name}, more...)...)
}

func (w *podWarner) each(s *corev1.PodSpec, visit func(*corev1.Container, *field.Path)) {
	for i := range s.InitContainers {
		visit(&s.InitContainers[i], w.spec("initContainers").Index(i))
	}
	for i := range s.Containers {
		visit(&s.Containers[i], w.spec("containers").Index(i))
	}
}

func (w *podWarner) volumes(list []corev1.Volume) {
	for i := range list {
		at, v := w.spec("volumes").Index(i), &list[i]
		gone := func(set bool, name, text string) {
			if set {
				w.at(at.Child(name), text)
			}
		}
		gone(v.PhotonPersistentDisk != nil, "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+")
		gone(v.GitRepo != nil, "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+")
		gone(v.ScaleIO != nil, "scaleIO", "deprecated in v1.16, non-functional in v1.22+")
		gone(v.Flocker != nil, "flocker", "deprecated in v1.22, non-functional in v1.25+")
		gone(v.StorageOS != nil, "storageOS", "deprecated in v1.22, non-functional in v1.25+")
		gone(v.Quobyte != nil, "quobyte", "deprecated in v1.22, non-functional in v1.25+")
		gone(v.Glusterfs != nil, "glusterfs", "deprecated in v1.25, non-functional in v1.26+")
		gone(v.CephFS != nil, "cephfs", "deprecated in v1.28, non-functional in v1.31+")
		gone(v.RBD != nil, "rbd", "deprecated in v1.28, non-functional in v1.31+")
	}
}

func (w *podWarner) duplicates(s *corev1.PodSpec) {
	ips, secrets := map[string]bool{}, map[string]bool{}
	for i, a := range s.HostAliases {
		if ips[a.IP] {
			w.at(w.spec("hostAliases").Index(i).Child("ip"), fmt.Sprintf("duplicate ip %q", a.IP))
		}
		ips[a.IP] = true
	}
	for i, ref := range s.ImagePullSecrets {
		at := w.spec("imagePullSecrets").Index(i).Child("name")
		if secrets[ref.Name] {
			w.at(at, fmt.Sprintf("duplicate name %q", ref.Name))
		}
		secrets[ref.Name] = true
	}
	for i, ref := range s.ImagePullSecrets {
		if ref.Name == "" {
			w.at(w.spec("imagePullSecrets").Index(i).Child("name"), `invalid empty name ""`)
		}
	}
}

// fractions warns of parts of a byte.
func (w *podWarner) fractions(path *field.Path, list corev1.ResourceList) {
	for _, name := range []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		if q, ok := list[name]; ok && q.MilliValue()%1000 != 0 {
			w.at(path.Key(string(name)), fmt.Sprintf("fractional byte value %q is invalid, must be an integer", q.String()))
		}
	}
}

func (w *podWarner) seccomp(m *metav1.ObjectMeta, s *corev1.PodSpec) {
	const instead = `non-functional in v1.27+; use the "seccompProfile" field instead`
	old := func(set bool, key string) {
		if _, ok := m.Annotations[key]; ok && !set {
			w.at(w.path.Child("metadata", "annotations").Key(key), instead)
		}
	}
	old(s.SecurityContext != nil && s.SecurityContext.SeccompProfile != nil, corev1.SeccompPodAnnotationKey)
	w.each(s, func(c *corev1.Container, _ *field.Path) {
		old(c.SecurityContext != nil && c.SecurityContext.SeccompProfile != nil, corev1.SeccompContainerAnnotationKeyPrefix+c.Name)
	})
}
