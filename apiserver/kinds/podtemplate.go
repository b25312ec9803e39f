package kinds

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// PodTemplate declares templates of pods that are stored by themselves.
func PodTemplate() registry.Kind {
	k := namespaced[corev1.PodTemplate, corev1.PodTemplateList](corev1.SchemeGroupVersion, "podtemplates")
	k.ReturnDeleted = true
	k.Columns = []metav1.TableColumnDefinition{
		str("Containers", "Names of each container in the template."), str("Images", "Images referenced by each container in the template."),
		str("Pod Labels", "The labels for the pod template."),
	}
	k.Row = row(func(t *corev1.PodTemplate) []any {
		names, images := containers(t.Template.Spec.Containers)
		return []any{names, images, labels.FormatLabels(t.Template.Labels)}
	})
	k.Default = defaults(defaulting.PodTemplate)
	count(&k, rules[*corev1.PodTemplate]{
		create:   func(t *corev1.PodTemplate) { dropAlpha(&t.Template.Spec, nil) },
		update:   func(t, old *corev1.PodTemplate) { dropAlpha(&t.Template.Spec, &old.Template.Spec) },
		validate: validation.PodTemplate, validateUpdate: validation.PodTemplateUpdate,
		warn: func(t, old *corev1.PodTemplate) []string {
			if old != nil && t.Generation == old.Generation {
				return nil
			}
			return warnPodSpec(&t.Template.ObjectMeta, &t.Template.Spec, templatePath())
		},
	}, "Template")
	return k
}
