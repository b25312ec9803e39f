package kinds

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

const labelRecommended = "which can result in surprising behavior; a DNS label is recommended: %v"

// warnPod warns on creation only: people rarely change pods themselves.
func warnPod(p, old *corev1.Pod) []string {
	if old != nil {
		return nil
	}
	var warnings []string
	if complaints := validation.IsDNS1123Label(p.Name); len(complaints) > 0 {
		warnings = append(warnings, fmt.Sprintf("metadata.name: this is used in the Pod's hostname, "+labelRecommended, complaints))
	}
	return append(warnings, warnPodSpec(&p.ObjectMeta, &p.Spec, nil)...)
}

func warnTemplateOwner(name string, t *corev1.PodTemplateSpec) []string {
	var warnings []string
	if complaints := validation.IsDNS1123Label(name); len(complaints) > 0 {
		warnings = append(warnings, fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, "+labelRecommended, complaints))
	}
	return append(warnings, warnTemplateChange(true, t, nil)...)
}
