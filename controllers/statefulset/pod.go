package statefulset

import (
	"fmt"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"skein.dev/skein/controllers/pods"
)

// Ordinal is the number of a pod of the set named after it, -1 for others.
func Ordinal(set *appsv1.StatefulSet, pod *corev1.Pod) int {
	tail, ok := strings.CutPrefix(pod.Name, set.Name+"-")
	if !ok {
		return -1
	}
	n, err := strconv.ParseUint(tail, 10, 31)
	if err != nil || strconv.FormatUint(n, 10) != tail {
		return -1
	}
	return int(n)
}

func podName(set *appsv1.StatefulSet, ordinal int) string {
	return fmt.Sprintf("%s-%d", set.Name, ordinal)
}

// start is the first ordinal.
func start(set *appsv1.StatefulSet) int {
	if set.Spec.Ordinals == nil {
		return 0
	}
	return int(set.Spec.Ordinals.Start)
}

func replicas(set *appsv1.StatefulSet) int {
	if set.Spec.Replicas == nil {
		return 1
	}
	return int(*set.Spec.Replicas)
}

// inRange reports whether the set wants a pod of this ordinal.
func inRange(set *appsv1.StatefulSet, ordinal int) bool {
	return ordinal >= start(set) && ordinal < start(set)+replicas(set)
}

// PodFor is the set's pod of an ordinal, by the template of a revision.
func PodFor(set *appsv1.StatefulSet, template *corev1.PodTemplateSpec, revision string, ordinal int) *corev1.Pod {
	p := pods.FromTemplate(set, kind(), template)
	p.Name = podName(set, ordinal)
	identify(set, p, ordinal)
	p.Labels[appsv1.StatefulSetRevisionLabel] = revision
	p.Spec.Hostname = p.Name
	p.Spec.Subdomain = set.Spec.ServiceName
	p.Spec.Volumes = volumes(set, p.Spec.Volumes, ordinal)
	return p
}

func identify(set *appsv1.StatefulSet, p *corev1.Pod, ordinal int) {
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels[appsv1.StatefulSetPodNameLabel] = podName(set, ordinal)
	p.Labels[appsv1.PodIndexLabel] = strconv.Itoa(ordinal)
}

// identified reports whether the pod still carries its name and number.
func identified(set *appsv1.StatefulSet, p *corev1.Pod, ordinal int) bool {
	return p.Labels[appsv1.StatefulSetPodNameLabel] == podName(set, ordinal) &&
		(p.Labels[appsv1.PodIndexLabel] == strconv.Itoa(ordinal))
}

// volumes puts the set's claims in the place of the template's volumes of the
// same names.
func volumes(set *appsv1.StatefulSet, from []corev1.Volume, ordinal int) []corev1.Volume {
	claimed := map[string]bool{}
	var out []corev1.Volume
	for i := range set.Spec.VolumeClaimTemplates {
		t := &set.Spec.VolumeClaimTemplates[i]
		claimed[t.Name] = true
		out = append(out, corev1.Volume{Name: t.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(set, t, ordinal)},
		}})
	}
	for _, v := range from {
		if !claimed[v.Name] {
			out = append(out, v)
		}
	}
	return out
}

func revisionOf(p *corev1.Pod) string { return p.Labels[appsv1.StatefulSetRevisionLabel] }
