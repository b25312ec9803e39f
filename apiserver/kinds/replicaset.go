package kinds

import (
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// ReplicaSet declares replica sets.
func ReplicaSet() registry.Kind {
	spec, status := appsv1.ReplicaSetSpec{}, appsv1.ReplicaSetStatus{}
	return registry.Kind{
		Resource: appsv1.SchemeGroupVersion.WithResource("replicasets"), Kind: "ReplicaSet", Singular: "replicaset",
		ShortNames: []string{"rs"}, Categories: []string{"all"}, Namespaced: true,
		New:     func() runtime.Object { return &appsv1.ReplicaSet{} },
		NewList: func() runtime.Object { return &appsv1.ReplicaSetList{} },
		Columns: columns([]metav1.TableColumnDefinition{
			num("Desired", describe(spec, "replicas")), num("Current", describe(status, "replicas")),
			num("Ready", describe(status, "readyReplicas")), ageColumn(),
		}, templateColumns(describe(spec, "selector"))...),
		Row: row(func(r *appsv1.ReplicaSet) []any {
			names, images := containers(r.Spec.Template.Spec.Containers)
			return []any{
				int64(valueOr(r.Spec.Replicas, 0)), int64(r.Status.Replicas), int64(r.Status.ReadyReplicas),
				age(r.CreationTimestamp), names, images, metav1.FormatLabelSelector(r.Spec.Selector),
			}
		}),
		Select: selects(func(r *appsv1.ReplicaSet) fields.Set {
			return fields.Set{"status.replicas": strconv.Itoa(int(r.Status.Replicas))}
		}),
		Unselectable: []string{"status.replicas"},
		Default:      defaults(defaulting.ReplicaSet),
		Strategy: rules[*appsv1.ReplicaSet]{
			create: func(r *appsv1.ReplicaSet) {
				r.Status, r.Generation = appsv1.ReplicaSetStatus{}, 1
				dropAlpha(&r.Spec.Template.Spec, nil)
			},
			update: func(r, old *appsv1.ReplicaSet) {
				r.Status = old.Status
				dropAlpha(&r.Spec.Template.Spec, &old.Spec.Template.Spec)
				bump(&r.ObjectMeta, &old.ObjectMeta, r.Spec, old.Spec)
			},
			validate: validation.ReplicaSet, validateUpdate: validation.ReplicaSetUpdate,
			warn: func(r, old *appsv1.ReplicaSet) []string {
				if old == nil {
					return warnTemplateOwner(r.Name, &r.Spec.Template)
				}
				return warnTemplateChange(r.Generation != old.Generation, &r.Spec.Template, &old.Spec.Template)
			},
		}.strategy(),
		Status: rules[*appsv1.ReplicaSet]{
			update:         func(r, old *appsv1.ReplicaSet) { r.Spec = old.Spec },
			validateUpdate: validation.ReplicaSetStatusUpdate,
		}.status(),
		Scale: &registry.Scale{
			Replicas: func(o runtime.Object) (spec, status int32, selector string) {
				r := o.(*appsv1.ReplicaSet)
				return valueOr(r.Spec.Replicas, 0), r.Status.Replicas, selectorString(r.Spec.Selector)
			},
			Set: func(o runtime.Object, replicas int32) { o.(*appsv1.ReplicaSet).Spec.Replicas = &replicas },
		},
	}
}
