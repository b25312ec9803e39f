package kinds

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// Namespace declares namespaces: deleted in two steps, the first of which
// waits until the finalizers of their spec are gone.
func Namespace() registry.Kind {
	finalize := rules[*corev1.Namespace]{
		update:         func(n, old *corev1.Namespace) { n.Status = old.Status },
		validateUpdate: validateNamespaceFinalize,
	}
	return registry.Kind{
		Resource: corev1.SchemeGroupVersion.WithResource("namespaces"), Kind: "Namespace", Singular: "namespace",
		ShortNames: []string{"ns"},
		New:        func() runtime.Object { return &corev1.Namespace{} }, NewList: func() runtime.Object { return &corev1.NamespaceList{} },
		Columns: []metav1.TableColumnDefinition{str("Status", "The status of the namespace"), ageColumn()},
		Row: row(func(n *corev1.Namespace) []any {
			return []any{string(n.Status.Phase), age(n.CreationTimestamp)}
		}),
		Select: selects(func(n *corev1.Namespace) fields.Set {
			return fields.Set{"status.phase": string(n.Status.Phase), "name": n.Name}
		}),
		Unselectable: []string{"name"},
		Default:      defaults(defaulting.Namespace),
		Strategy: rules[*corev1.Namespace]{
			create: createNamespace,
			update: func(n, old *corev1.Namespace) {
				n.Spec.Finalizers, n.Status = old.Spec.Finalizers, old.Status
			},
			validate: func(n *corev1.Namespace) field.ErrorList {
				errs := validation.Meta(&n.ObjectMeta, false, apivalidation.ValidateNamespaceName)
				for _, f := range n.Spec.Finalizers { // upstream counts them only in updates
					errs = append(errs, validateFinalizer(f, field.NewPath("spec", "finalizers"))...)
				}
				return errs
			},
			validateUpdate: validateNamespaceMeta,
		}.strategy(),
		Status: rules[*corev1.Namespace]{
			update:         func(n, old *corev1.Namespace) { n.Spec = old.Spec },
			validateUpdate: validateNamespaceStatus,
		}.status(),
		Finalize: finalize.status(),
	}
}

// createNamespace starts a namespace with the finalizer that the namespace
// controller takes away when the namespace is empty.
func createNamespace(n *corev1.Namespace) {
	n.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	if !slices.Contains(n.Spec.Finalizers, corev1.FinalizerKubernetes) {
		n.Spec.Finalizers = append(n.Spec.Finalizers, corev1.FinalizerKubernetes)
	}
}

func validateNamespaceMeta(n, old *corev1.Namespace) field.ErrorList {
	errs := validation.Meta(&n.ObjectMeta, false, apivalidation.ValidateNamespaceName)
	return append(errs, validation.MetaUpdate(&n.ObjectMeta, &old.ObjectMeta)...)
}

func validateNamespaceStatus(n, old *corev1.Namespace) field.ErrorList {
	errs := validation.MetaUpdate(&n.ObjectMeta, &old.ObjectMeta)
	path := field.NewPath("status", "Phase") // upstream writes it so
	terminating := n.Status.Phase == corev1.NamespaceTerminating
	switch {
	case n.DeletionTimestamp.IsZero() && n.Status.Phase != corev1.NamespaceActive:
		errs = append(errs, field.Invalid(path, n.Status.Phase, "may only be 'Active' if `deletionTimestamp` is empty"))
	case !n.DeletionTimestamp.IsZero() && !terminating:
		errs = append(errs, field.Invalid(path, n.Status.Phase, "may only be 'Terminating' if `deletionTimestamp` is not empty"))
	}
	return errs
}

func validateNamespaceFinalize(n, old *corev1.Namespace) field.ErrorList {
	errs := validation.MetaUpdate(&n.ObjectMeta, &old.ObjectMeta)
	for i, f := range n.Spec.Finalizers {
		errs = append(errs, validateFinalizer(f, field.NewPath("spec", "finalizers").Index(i))...)
	}
	return errs
}

// validateFinalizer takes qualified names, and without a prefix only those
// that Kubernetes itself knows.
func validateFinalizer(f corev1.FinalizerName, path *field.Path) (errs field.ErrorList) {
	for _, msg := range utilvalidation.IsQualifiedName(string(f)) {
		errs = append(errs, field.Invalid(path, string(f), msg))
	}
	return append(errs, validation.KnownFinalizer(string(f), path)...)
}
