package kinds

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// podSubresources are the two ways to change a pod that runs: more containers
// to look into it, and other amounts of CPU and memory.
func podSubresources() map[string]*registry.Strategy {
	return map[string]*registry.Strategy{
		"ephemeralcontainers": rules[*corev1.Pod]{
			update: debugPod, validateUpdate: validation.PodEphemeralContainersUpdate,
		}.status(),
		"resize": rules[*corev1.Pod]{
			update: resizePod,
			validateUpdate: func(p, old *corev1.Pod) field.ErrorList {
				before := old.Status.QOSClass
				if before == "" {
					before = qosClass(old)
				}
				return validation.PodResize(p, old, before == qosClass(p))
			},
		}.status(),
	}
}

// keepPod puts back all of a pod but its managed fields.
func keepPod(p, old *corev1.Pod) {
	p.Spec, p.Status = *old.Spec.DeepCopy(), *old.Status.DeepCopy()
	metav1.ResetObjectMetaForStatus(&p.ObjectMeta, &old.ObjectMeta)
}

func debugPod(p, old *corev1.Pod) {
	more := p.Spec.EphemeralContainers
	keepPod(p, old)
	p.Spec.EphemeralContainers = more
	dropAlpha(&p.Spec, &old.Spec)
	bump(&p.ObjectMeta, &old.ObjectMeta, p.Spec, old.Spec)
}

// resizePod takes over resources and nothing else. What cannot be matched by
// its order is left for validation to refuse.
func resizePod(p, old *corev1.Pod) {
	now := p.Spec
	if len(now.Containers) == len(old.Spec.Containers) && len(now.InitContainers) == len(old.Spec.InitContainers) {
		keepPod(p, old)
		p.Spec.Resources = now.Resources
		p.Spec.Containers = resized(now.Containers, old.Spec.Containers)
		p.Spec.InitContainers = resized(now.InitContainers, old.Spec.InitContainers)
	}
	if p.Spec.Resources == nil && old.Spec.Resources != nil {
		p.Spec.Resources = old.Spec.Resources.DeepCopy()
	}
	if p.Spec.Resources != nil {
		defaulting.PodLevelResources(p)
	}
	dropAlpha(&p.Spec, &old.Spec)
	bump(&p.ObjectMeta, &old.ObjectMeta, p.Spec, old.Spec)
}

func resized(now, before []corev1.Container) []corev1.Container {
	if len(now) == 0 {
		return now
	}
	out := make([]corev1.Container, len(before))
	for i := range before {
		if now[i].Name != before[i].Name {
			return now
		}
		before[i].DeepCopyInto(&out[i])
		out[i].Resources, out[i].ResizePolicy = now[i].Resources, now[i].ResizePolicy
	}
	return out
}
