package kinds

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// Deployment declares deployments.
func Deployment() registry.Kind {
	status := appsv1.DeploymentStatus{}
	return registry.Kind{
		Resource: appsv1.SchemeGroupVersion.WithResource("deployments"), Kind: "Deployment", Singular: "deployment",
		ShortNames: []string{"deploy"}, Categories: []string{"all"}, Namespaced: true,
		New:     func() runtime.Object { return &appsv1.Deployment{} },
		NewList: func() runtime.Object { return &appsv1.DeploymentList{} },
		Columns: columns([]metav1.TableColumnDefinition{
			str("Ready", "Number of the pod with ready state"),
			str("Up-to-date", describe(status, "updatedReplicas")),
			str("Available", describe(status, "availableReplicas")),
			ageColumn(),
		}, templateColumns(describe(appsv1.DeploymentSpec{}, "selector"))...),
		Row: row(deploymentRow), Default: defaults(defaulting.Deployment),
		Strategy: rules[*appsv1.Deployment]{
			create: func(d *appsv1.Deployment) {
				d.Status, d.Generation = appsv1.DeploymentStatus{}, 1
				dropAlpha(&d.Spec.Template.Spec, nil)
			},
			update: func(d, old *appsv1.Deployment) {
				d.Status = old.Status
				dropAlpha(&d.Spec.Template.Spec, &old.Spec.Template.Spec)
				// Annotations count because replica sets copy them.
				bump(&d.ObjectMeta, &old.ObjectMeta, []any{d.Spec, d.Annotations}, []any{old.Spec, old.Annotations})
			},
			validate: validation.Deployment, validateUpdate: validation.DeploymentUpdate,
			warn: func(d, old *appsv1.Deployment) []string {
				if old == nil {
					return warnTemplateOwner(d.Name, &d.Spec.Template)
				}
				return warnTemplateChange(d.Generation != old.Generation, &d.Spec.Template, &old.Spec.Template)
			},
		}.strategy(),
		Status: rules[*appsv1.Deployment]{
			update: func(d, old *appsv1.Deployment) {
				d.Spec, d.Labels = old.Spec, old.Labels
			},
			validateUpdate: validation.DeploymentStatusUpdate,
		}.status(),
		Scale: &registry.Scale{
			Replicas: func(o runtime.Object) (spec, status int32, selector string) {
				d := o.(*appsv1.Deployment)
				return valueOr(d.Spec.Replicas, 0), d.Status.Replicas, selectorString(d.Spec.Selector)
			},
			Set: func(o runtime.Object, replicas int32) { o.(*appsv1.Deployment).Spec.Replicas = &replicas },
		},
	}
}

func deploymentRow(d *appsv1.Deployment) []any {
	names, images := containers(d.Spec.Template.Spec.Containers)
	return []any{
		fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, valueOr(d.Spec.Replicas, 0)),
		int64(d.Status.UpdatedReplicas), int64(d.Status.AvailableReplicas), age(d.CreationTimestamp),
		names, images, or(selectorString(d.Spec.Selector), ""),
	}
}

// selectorString is a selector as scale and columns show it.
func selectorString(s *metav1.LabelSelector) string {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return "<invalid>"
	}
	return selector.String()
}
