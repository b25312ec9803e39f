package kinds

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// StatefulSet declares stateful sets.
func StatefulSet() registry.Kind {
	return registry.Kind{
		Resource: appsv1.SchemeGroupVersion.WithResource("statefulsets"), Kind: "StatefulSet", Singular: "statefulset",
		ShortNames: []string{"sts"}, Categories: []string{"all"}, Namespaced: true,
		New:     func() runtime.Object { return &appsv1.StatefulSet{} },
		NewList: func() runtime.Object { return &appsv1.StatefulSetList{} },
		Columns: columns([]metav1.TableColumnDefinition{
			str("Ready", "Number of the pod with ready state"), ageColumn(),
		}, templateColumns("")...),
		Row: row(func(s *appsv1.StatefulSet) []any {
			names, images := containers(s.Spec.Template.Spec.Containers)
			return []any{
				fmt.Sprintf("%d/%d", s.Status.ReadyReplicas, valueOr(s.Spec.Replicas, 0)), age(s.CreationTimestamp), names, images,
			}
		}),
		Default: defaults(defaulting.StatefulSet),
		Strategy: rules[*appsv1.StatefulSet]{
			create: func(s *appsv1.StatefulSet) {
				s.Status, s.Generation = appsv1.StatefulSetStatus{}, 1
				dropAlpha(&s.Spec.Template.Spec, nil)
			},
			update: func(s, old *appsv1.StatefulSet) {
				s.Status = old.Status
				dropAlpha(&s.Spec.Template.Spec, &old.Spec.Template.Spec)
				bump(&s.ObjectMeta, &old.ObjectMeta, s.Spec, old.Spec)
			},
			validate: validation.StatefulSet, validateUpdate: validation.StatefulSetUpdate,
			warn: func(s, old *appsv1.StatefulSet) []string {
				changed := old == nil || s.Generation != old.Generation
				warnings := warnTemplateChange(changed, &s.Spec.Template, nil)
				if valueOr(s.Spec.RevisionHistoryLimit, 0) < 0 {
					warnings = append(warnings, "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended")
				}
				return warnings
			},
		}.strategy(),
		Status: rules[*appsv1.StatefulSet]{
			update:         func(s, old *appsv1.StatefulSet) { s.Spec = old.Spec },
			validateUpdate: validation.StatefulSetStatusUpdate,
		}.status(),
		Scale: &registry.Scale{
			Replicas: func(o runtime.Object) (spec, status int32, selector string) {
				s := o.(*appsv1.StatefulSet)
				return valueOr(s.Spec.Replicas, 0), s.Status.Replicas, selectorString(s.Spec.Selector)
			},
			Set: func(o runtime.Object, replicas int32) { o.(*appsv1.StatefulSet).Spec.Replicas = &replicas },
		},
	}
}

// DaemonSet declares daemon sets.
func DaemonSet() registry.Kind {
	spec, status := appsv1.DaemonSetSpec{}, appsv1.DaemonSetStatus{}
	return registry.Kind{
		Resource: appsv1.SchemeGroupVersion.WithResource("daemonsets"), Kind: "DaemonSet", Singular: "daemonset",
		ShortNames: []string{"ds"}, Categories: []string{"all"}, Namespaced: true,
		New:     func() runtime.Object { return &appsv1.DaemonSet{} },
		NewList: func() runtime.Object { return &appsv1.DaemonSetList{} },
		Columns: columns([]metav1.TableColumnDefinition{
			num("Desired", describe(status, "desiredNumberScheduled")), num("Current", describe(status, "currentNumberScheduled")),
			num("Ready", describe(status, "numberReady")), num("Up-to-date", describe(status, "updatedNumberScheduled")),
			num("Available", describe(status, "numberAvailable")), str("Node Selector", describe(podSpecWords(), "nodeSelector")), ageColumn(),
		}, templateColumns(describe(spec, "selector"))...),
		Row: row(func(d *appsv1.DaemonSet) []any {
			names, images := containers(d.Spec.Template.Spec.Containers)
			s := d.Status
			return []any{
				int64(s.DesiredNumberScheduled), int64(s.CurrentNumberScheduled), int64(s.NumberReady), int64(s.UpdatedNumberScheduled),
				int64(s.NumberAvailable), labels.FormatLabels(d.Spec.Template.Spec.NodeSelector), age(d.CreationTimestamp),
				names, images, metav1.FormatLabelSelector(d.Spec.Selector),
			}
		}),
		Default: defaults(defaulting.DaemonSet),
		Strategy: rules[*appsv1.DaemonSet]{
			create: func(d *appsv1.DaemonSet) {
				d.Status, d.Generation = appsv1.DaemonSetStatus{}, 1
				templateGeneration(d, nil)
				dropAlpha(&d.Spec.Template.Spec, nil)
			},
			update: func(d, old *appsv1.DaemonSet) {
				d.Status = old.Status
				dropAlpha(&d.Spec.Template.Spec, &old.Spec.Template.Spec)
				templateGeneration(d, old)
				bump(&d.ObjectMeta, &old.ObjectMeta, d.Spec, old.Spec)
			},
			validate: validation.DaemonSet, validateUpdate: validation.DaemonSetUpdate,
			warn: func(d, old *appsv1.DaemonSet) []string {
				return warnTemplateChange(old == nil || d.Generation != old.Generation, &d.Spec.Template, nil)
			},
		}.strategy(),
		Status: rules[*appsv1.DaemonSet]{
			update: func(d, old *appsv1.DaemonSet) {
				d.Spec = old.Spec
				templateGeneration(d, old)
			},
			validateUpdate: validation.DaemonSetStatusUpdate,
		}.status(),
	}
}
