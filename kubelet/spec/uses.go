package spec

import (
	"iter"

	corev1 "k8s.io/api/core/v1"
)

// Reference is a config map or secret that a pod refers to, in its own
// namespace.
type Reference struct{ Kind, Name string }

// The kinds of a [Reference].
const (
	ConfigMap = "ConfigMap"
	Secret    = "Secret"
)

// Uses reports whether the pod's volumes or environment refer to the config
// map or secret of that name.
func Uses(pod *corev1.Pod, kind, name string) bool {
	for r := range References(pod) {
		if r == (Reference{kind, name}) {
			return true
		}
	}
	return false
}

// References yields the config maps and secrets that the pod refers to, one
// perhaps more than once.
func References(pod *corev1.Pod) iter.Seq[Reference] {
	return func(yield func(Reference) bool) {
		for _, part := range []iter.Seq[Reference]{volumeRefs(pod), envRefs(pod)} {
			for r := range part {
				if !yield(r) {
					return
				}
			}
		}
		for _, s := range pod.Spec.ImagePullSecrets {
			if !yield(Reference{Secret, s.Name}) {
				return
			}
		}
	}
}

func volumeRefs(pod *corev1.Pod) iter.Seq[Reference] {
	return func(yield func(Reference) bool) {
		for i := range pod.Spec.Volumes {
			v := &pod.Spec.Volumes[i]
			if v.ConfigMap != nil && !yield(Reference{ConfigMap, v.ConfigMap.Name}) ||
				v.Secret != nil && !yield(Reference{Secret, v.Secret.SecretName}) {
				return
			}
			if v.Projected == nil {
				continue
			}
			for _, s := range v.Projected.Sources {
				if s.ConfigMap != nil && !yield(Reference{ConfigMap, s.ConfigMap.Name}) ||
					s.Secret != nil && !yield(Reference{Secret, s.Secret.Name}) {
					return
				}
			}
		}
	}
}

func envRefs(pod *corev1.Pod) iter.Seq[Reference] {
	return func(yield func(Reference) bool) {
		for c := range Containers(pod) {
			for _, f := range c.EnvFrom {
				if f.ConfigMapRef != nil && !yield(Reference{ConfigMap, f.ConfigMapRef.Name}) ||
					f.SecretRef != nil && !yield(Reference{Secret, f.SecretRef.Name}) {
					return
				}
			}
			for _, e := range c.Env {
				src := e.ValueFrom
				if src == nil {
					continue
				}
				if src.ConfigMapKeyRef != nil && !yield(Reference{ConfigMap, src.ConfigMapKeyRef.Name}) ||
					src.SecretKeyRef != nil && !yield(Reference{Secret, src.SecretKeyRef.Name}) {
					return
				}
			}
		}
	}
}

// Containers yields all containers of a pod: init containers, regular ones,
// and ephemeral ones, which are containers in all but their place.
func Containers(pod *corev1.Pod) iter.Seq[*corev1.Container] {
	return func(yield func(*corev1.Container) bool) {
		for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for i := range list {
				if !yield(&list[i]) {
					return
				}
			}
		}
		for i := range pod.Spec.EphemeralContainers {
			if !yield(Ephemeral(&pod.Spec.EphemeralContainers[i])) {
				return
			}
		}
	}
}

// Ephemeral is an ephemeral container as what it is beside its target.
func Ephemeral(e *corev1.EphemeralContainer) *corev1.Container {
	return (*corev1.Container)(&e.EphemeralContainerCommon)
}
