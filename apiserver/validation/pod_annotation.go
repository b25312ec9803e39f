package validation

import (
	"encoding/json"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// podAnnotations validates the annotations that mean something on a pod or a
// template, except the cost of deletion.
func podAnnotations(p *problems, path *field.Path, annotations map[string]string, s *corev1.PodSpec) {
	if value, ok := annotations[corev1.MirrorPodAnnotationKey]; ok && s.NodeName == "" {
		p.invalid(path.Key(corev1.MirrorPodAnnotationKey), value, "must set spec.nodeName if mirror pod annotation is set")
	}
	if value := annotations[corev1.TolerationsAnnotationKey]; value != "" {
		var list []corev1.Toleration
		if err := json.Unmarshal([]byte(value), &list); err != nil {
			p.invalid(path, corev1.TolerationsAnnotationKey, err.Error())
		}
		(&podCheck{problems: p, spec: s}).checkTolerations(path.Child(corev1.TolerationsAnnotationKey), list)
	}
	for _, key := range sorted(annotations) {
		value := annotations[key]
		if key == corev1.SeccompPodAnnotationKey || strings.HasPrefix(key, corev1.SeccompContainerAnnotationKeyPrefix) {
			seccompAnnotation(p, path.Child(key), value)
		}
		if name, ok := strings.CutPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix); ok {
			if !hasContainer(s, name) {
				p.invalid(path.Key(key), name, "container not found")
			}
			known := value == "" || value == corev1.DeprecatedAppArmorBetaProfileRuntimeDefault ||
				value == corev1.DeprecatedAppArmorBetaProfileNameUnconfined ||
				strings.HasPrefix(value, corev1.DeprecatedAppArmorBetaProfileNamePrefix)
			if !known {
				p.invalid(path.Key(key), value, "invalid AppArmor profile name: "+strconv.Quote(value))
			}
		}
	}
}

func hasContainer(s *corev1.PodSpec, name string) (found bool) {
	eachContainer(s, field.NewPath("spec"), func(c *corev1.Container, _ *field.Path) { found = found || c.Name == name })
	return found
}

func seccompAnnotation(p *problems, path *field.Path, value string) {
	switch local, ok := strings.CutPrefix(value, corev1.SeccompLocalhostProfileNamePrefix); {
	case ok:
		p.descending(path, local)
	case value == corev1.SeccompProfileRuntimeDefault, value == corev1.DeprecatedSeccompProfileDockerDefault,
		value == corev1.SeccompProfileNameUnconfined:
	default:
		p.invalid(path, value, "must be a valid seccomp profile")
	}
}

// validDeletionCost tells whether the cost of deleting a pod is a number.
func validDeletionCost(annotations map[string]string) bool {
	value, ok := annotations[corev1.PodDeletionCost]
	if !ok {
		return true
	}
	// The form is strict: one number has one spelling.
	n, err := strconv.ParseInt(value, 10, 32)
	return err == nil && strconv.FormatInt(n, 10) == value
}

func deletionCost(p *problems, path *field.Path, annotations map[string]string) {
	if !validDeletionCost(annotations) {
		p.invalid(path.Key(corev1.PodDeletionCost), annotations[corev1.PodDeletionCost], "must be a 32bit integer")
	}
}

// annotationChanges guards the annotations that stay as they are.
func annotationChanges(p *problems, pod, old *corev1.Pod) {
	path := field.NewPath("metadata", "annotations")
	armor := func(key string) bool {
		return strings.HasPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix)
	}
	for _, key := range sorted(old.Annotations) {
		if value, ok := pod.Annotations[key]; ok && value == old.Annotations[key] {
			continue
		}
		p.forbid(path.Key(key), armor(key), "may not remove or update AppArmor annotations")
		p.forbid(path.Key(key), key == corev1.MirrorPodAnnotationKey, "may not remove or update mirror pod annotation")
	}
	for _, key := range sorted(pod.Annotations) {
		if _, ok := old.Annotations[key]; ok {
			continue
		}
		p.forbid(path.Key(key), armor(key), "may not add AppArmor annotations")
		p.forbid(path.Key(key), key == corev1.MirrorPodAnnotationKey, "may not add mirror pod annotation")
	}
	podAnnotations(p, path, pod.Annotations, &pod.Spec)
	if validDeletionCost(old.Annotations) {
		deletionCost(p, path, pod.Annotations)
	}
}

// seccompAnnotations demands that annotations and fields, where both are set, agree.
func seccompAnnotations(p *problems, path *field.Path, m *metav1.ObjectMeta, s *corev1.PodSpec) {
	if sc := s.SecurityContext; sc != nil && sc.SeccompProfile != nil {
		if value, ok := m.Annotations[corev1.SeccompPodAnnotationKey]; ok {
			seccompAgrees(p, path.Child("securityContext", "seccompProfile"), value, sc.SeccompProfile)
		}
	}
	eachContainer(s, path, func(c *corev1.Container, at *field.Path) {
		if c.SecurityContext == nil || c.SecurityContext.SeccompProfile == nil {
			return
		}
		if value, ok := m.Annotations[corev1.SeccompContainerAnnotationKeyPrefix+c.Name]; ok {
			seccompAgrees(p, at.Child("securityContext", "seccompProfile"), value, c.SecurityContext.SeccompProfile)
		}
	})
}

func seccompAgrees(p *problems, path *field.Path, value string, s *corev1.SeccompProfile) {
	agrees := true
	switch s.Type {
	case corev1.SeccompProfileTypeUnconfined:
		agrees = value == corev1.SeccompProfileNameUnconfined
	case corev1.SeccompProfileTypeRuntimeDefault:
		agrees = value == corev1.SeccompProfileRuntimeDefault || value == corev1.DeprecatedSeccompProfileDockerDefault
	case corev1.SeccompProfileTypeLocalhost:
		profileAgrees(p, path, "seccomp", value, corev1.SeccompLocalhostProfileNamePrefix, s.LocalhostProfile)
	default:
	}
	p.forbid(path.Child("type"), !agrees, "seccomp type in annotation and field must match")
}

func profileAgrees(p *problems, path *field.Path, what, value, prefix string, profile *string) {
	name, ok := strings.CutPrefix(value, prefix)
	if !ok {
		p.forbidden(path.Child("type"), what+" type in annotation and field must match")
	} else if profile == nil || *profile != name {
		p.forbidden(path.Child("localhostProfile"), what+" profile in annotation and field must match")
	}
}

// appArmorAnnotations is seccompAnnotations for AppArmor, where containers
// inherit the pod's profile.
func appArmorAnnotations(p *problems, path *field.Path, m *metav1.ObjectMeta, s *corev1.PodSpec) {
	if s.OS != nil && s.OS.Name == corev1.Windows {
		return
	}
	eachContainer(s, path, func(c *corev1.Container, at *field.Path) {
		var profile *corev1.AppArmorProfile
		if s.SecurityContext != nil {
			profile = s.SecurityContext.AppArmorProfile
		}
		if c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil {
			profile = c.SecurityContext.AppArmorProfile
		}
		value, ok := m.Annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name]
		if profile == nil || !ok {
			return
		}
		at = at.Child("securityContext", "appArmorProfile")
		agrees := true
		switch profile.Type {
		case corev1.AppArmorProfileTypeUnconfined:
			agrees = value == corev1.DeprecatedAppArmorBetaProfileNameUnconfined
		case corev1.AppArmorProfileTypeRuntimeDefault:
			agrees = value == corev1.DeprecatedAppArmorBetaProfileRuntimeDefault
		case corev1.AppArmorProfileTypeLocalhost:
			profileAgrees(p, at, "apparmor", value, corev1.DeprecatedAppArmorBetaProfileNamePrefix, profile.LocalhostProfile)
		default:
		}
		p.forbid(at.Child("type"), !agrees, "apparmor type in annotation and field must match")
	})
}
