package validation

import (
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// PodEphemeralContainersUpdate validates containers that are added to a
// running pod; those it has stay as they are.
func PodEphemeralContainersUpdate(pod, old *corev1.Pod) field.ErrorList {
	m := metaUpdate(&pod.ObjectMeta, &old.ObjectMeta)
	p := &m
	p.add(podRules(pod, old).list...)
	annotationChanges(p, pod, old)
	if _, static := old.Annotations[corev1.MirrorPodAnnotationKey]; static {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods do not support ephemeral containers")}
	}
	now := map[string]*corev1.EphemeralContainer{}
	for i := range pod.Spec.EphemeralContainers {
		now[pod.Spec.EphemeralContainers[i].Name] = &pod.Spec.EphemeralContainers[i]
	}
	path := field.NewPath("spec", "ephemeralContainers")
	for _, before := range old.Spec.EphemeralContainers {
		if c := now[before.Name]; c == nil {
			p.forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be removed\n", before.Name))
		} else if !equality.Semantic.DeepEqual(before, *c) {
			p.forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be changed\n%v", before.Name, diff.Diff(before, *c)))
		}
	}
	return p.list
}

const onlyMutable = "only cpu and memory resources are mutable"

// PodResize validates new amounts of CPU and memory for a pod that runs.
// sameClass says whether its quality of service stays, which it must.
func PodResize(pod, old *corev1.Pod, sameClass bool) field.ErrorList {
	m := metaUpdate(&pod.ObjectMeta, &old.ObjectMeta)
	p := &m
	p.add(podRules(pod, old).list...)
	if _, static := old.Annotations[corev1.MirrorPodAnnotationKey]; static {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods cannot be resized")}
	}
	if old.Spec.OS != nil && old.Spec.OS.Name == corev1.Windows {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "windows pods cannot be resized")}
	}
	path := field.NewPath("spec")
	if !sameClass {
		p.invalid(path, pod.Status.QOSClass, "Pod QOS Class may not change as a result of resizing")
	}
	p.forbid(path, !resizable(old), "Pod running on node without support for resize")
	rest := pod.Spec.DeepCopy() // what is left when all that may change is put back
	podResize(p, path, rest, &old.Spec)
	before := len(p.list)
	inOrder(p, path, "containers", pod.Spec.Containers, old.Spec.Containers)
	inOrder(p, path, "initContainers", pod.Spec.InitContainers, old.Spec.InitContainers)
	if len(p.list) > before {
		return p.list
	}
	containersResize(p, path, rest, &old.Spec)
	p.forbid(path.Child("volumes"), !equality.Semantic.DeepEqual(pod.Spec.Volumes, old.Spec.Volumes),
		"volumes are immutable on resize when InPlacePodVerticalScalingMemoryBackedVolumes feature gate is disabled")
	if len(p.list) == 0 && !equality.Semantic.DeepEqual(*rest, old.Spec) {
		p.forbidden(path, onlyMutable)
	}
	return p.list
}

// resizable tells whether the pod's node reports what containers have got,
// without which it cannot be asked to change it.
func resizable(pod *corev1.Pod) bool {
	for _, s := range pod.Status.ContainerStatuses {
		if s.State.Running != nil {
			return s.Resources != nil
		}
	}
	return true
}

func hasResources(s *corev1.PodSpec) bool {
	return s.Resources != nil && len(s.Resources.Requests)+len(s.Resources.Limits) > 0
}

// podResize validates the resources of the pod as a whole and puts back what
// may change of them.
func podResize(p *problems, path *field.Path, s, old *corev1.PodSpec) {
	if !hasResources(s) && !hasResources(old) {
		return
	}
	at, had := path.Child("resources"), old.Resources
	if had != nil && s.Resources == nil {
		p.forbidden(at, "pod-level resources cannot be removed")
		return
	}
	if had != nil {
		p.forbid(at.Child("requests"), removed(s.Resources.Requests, had.Requests), "pod-level resource requests cannot be removed")
		p.forbid(at.Child("limits"), removed(s.Resources.Limits, had.Limits), "pod-level resource limits cannot be removed")
	}
	before := corev1.ResourceRequirements{}
	if had != nil {
		before = *had
	}
	restore(s.Resources, &before)
	if had == nil && len(s.Resources.Requests)+len(s.Resources.Limits)+len(s.Resources.Claims) == 0 {
		s.Resources = nil
	}
	p.forbid(path, !equality.Semantic.DeepEqual(s.Resources, had), onlyMutable+" at pod-level")
}

func removed(now, before corev1.ResourceList) bool {
	for name := range before {
		if _, ok := now[name]; !ok {
			return true
		}
	}
	return false
}

// restore gives r the CPU and memory of old.
func restore(r, old *corev1.ResourceRequirements) {
	r.Requests = restoreList(r.Requests, old.Requests)
	r.Limits = restoreList(r.Limits, old.Limits)
}

func restoreList(now, before corev1.ResourceList) corev1.ResourceList {
	if now == nil && before == nil {
		return nil
	}
	out := corev1.ResourceList{}
	maps.Copy(out, now)
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		delete(out, name)
		if q, ok := before[name]; ok {
			out[name] = q
		}
	}
	return out
}

func inOrder(p *problems, path *field.Path, name string, now, before []corev1.Container) {
	at := path.Child(name)
	if len(now) != len(before) {
		p.forbidden(at, name+" may not be added or removed on resize")
		return
	}
	for i := range before {
		p.forbid(at.Index(i).Child("name"), now[i].Name != before[i].Name, name+" may not be renamed or reordered on resize")
	}
}

// containersResize validates the resources of containers and puts back what
// may change of them.
func containersResize(p *problems, path *field.Path, s, old *corev1.PodSpec) {
	keep := func(at *field.Path, now, before []corev1.Container) {
		for i := range before {
			here := at.Index(i).Child("resources")
			p.forbid(here.Child("requests"), removed(now[i].Resources.Requests, before[i].Resources.Requests), "resource requests cannot be removed")
			p.forbid(here.Child("limits"), removed(now[i].Resources.Limits, before[i].Resources.Limits), "resource limits cannot be removed")
		}
	}
	keep(path.Child("initContainers"), s.InitContainers, old.InitContainers)
	keep(path.Child("containers"), s.Containers, old.Containers)
	for i := range s.Containers {
		c, before := &s.Containers[i], &old.Containers[i]
		restore(&c.Resources, &before.Resources)
		p.forbid(path, !equality.Semantic.DeepEqual(c, before), onlyMutable)
	}
	for i := range s.InitContainers {
		c, before, at := &s.InitContainers[i], &old.InitContainers[i], path.Child("initContainers").Index(i)
		changed := !equality.Semantic.DeepEqual(c, before)
		restore(&c.Resources, &before.Resources)
		p.forbid(at, !equality.Semantic.DeepEqual(c, before), "only cpu and memory resources for init or sidecar containers are mutable")
		if !changed || sidecar(c) {
			continue
		}
		for _, policy := range c.ResizePolicy {
			p.forbid(at, policy.RestartPolicy == corev1.RestartContainer,
				"non-sidecar init containers with a resize policy of RestartContainer cannot be resized")
		}
	}
}
