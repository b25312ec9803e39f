package kinds

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// ReplicationController declares replication controllers.
func ReplicationController() registry.Kind {
	spec, status := corev1.ReplicationControllerSpec{}, corev1.ReplicationControllerStatus{}
	k := namespaced[corev1.ReplicationController, corev1.ReplicationControllerList](corev1.SchemeGroupVersion, "replicationcontrollers", "rc")
	k.Categories = []string{"all"}
	k.Columns = columns([]metav1.TableColumnDefinition{
		num("Desired", describe(spec, "replicas")), num("Current", describe(status, "replicas")),
		num("Ready", describe(status, "readyReplicas")), ageColumn(),
	}, templateColumns(describe(spec, "selector"))...)
	k.Row = row(func(r *corev1.ReplicationController) []any {
		names, images := containers(controllerTemplate(r).Spec.Containers)
		return []any{
			int64(valueOr(r.Spec.Replicas, 0)), int64(r.Status.Replicas), int64(r.Status.ReadyReplicas),
			age(r.CreationTimestamp), names, images, labels.FormatLabels(r.Spec.Selector),
		}
	})
	k.Select = selects(func(r *corev1.ReplicationController) fields.Set {
		return fields.Set{"status.replicas": strconv.Itoa(int(r.Status.Replicas))}
	})
	k.Default = defaults(defaulting.ReplicationController)
	divide(&k, true, rules[*corev1.ReplicationController]{
		create: func(r *corev1.ReplicationController) {
			if r.Spec.Template != nil {
				dropAlpha(&r.Spec.Template.Spec, nil)
			}
		},
		update: func(r, old *corev1.ReplicationController) {
			if r.Spec.Template != nil {
				dropAlpha(&r.Spec.Template.Spec, &controllerTemplate(old).Spec)
			}
		},
		validate: validation.ReplicationController, validateUpdate: validation.ReplicationControllerUpdate,
		warn: func(r, old *corev1.ReplicationController) []string {
			if old == nil {
				return warnTemplateOwner(r.Name, controllerTemplate(r))
			}
			return warnTemplateChange(r.Generation != old.Generation, controllerTemplate(r), nil)
		},
	}, rules[*corev1.ReplicationController]{validateUpdate: validation.ReplicationControllerStatusUpdate})
	k.Scale = &registry.Scale{
		Replicas: func(o runtime.Object) (spec, status int32, selector string) {
			r := o.(*corev1.ReplicationController)
			return valueOr(r.Spec.Replicas, 0), r.Status.Replicas, labels.Set(r.Spec.Selector).AsSelector().String()
		},
		Set: func(o runtime.Object, replicas int32) { o.(*corev1.ReplicationController).Spec.Replicas = &replicas },
	}
	return k
}

// controllerTemplate is a controller's template, empty if it has none.
func controllerTemplate(r *corev1.ReplicationController) *corev1.PodTemplateSpec {
	if r.Spec.Template == nil {
		return &corev1.PodTemplateSpec{}
	}
	return r.Spec.Template
}
