package kinds

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// Lease declares leases.
func Lease() registry.Kind {
	return registry.Kind{
		Resource: coordinationv1.SchemeGroupVersion.WithResource("leases"), Kind: "Lease", Singular: "lease", Namespaced: true,
		New:     func() runtime.Object { return &coordinationv1.Lease{} },
		NewList: func() runtime.Object { return &coordinationv1.LeaseList{} },
		Columns: []metav1.TableColumnDefinition{
			str("Holder", describe(coordinationv1.LeaseSpec{}, "holderIdentity")), ageColumn(),
		},
		Row: row(func(l *coordinationv1.Lease) []any {
			return []any{valueOr(l.Spec.HolderIdentity, ""), age(l.CreationTimestamp)}
		}),
		Strategy: rules[*coordinationv1.Lease]{
			// Coordinated leader election is alpha, and off as upstream has it.
			create: func(l *coordinationv1.Lease) {
				l.Spec.Strategy, l.Spec.PreferredHolder = nil, nil
			},
			update: func(l, old *coordinationv1.Lease) {
				if old.Spec.Strategy == nil && old.Spec.PreferredHolder == nil {
					l.Spec.Strategy, l.Spec.PreferredHolder = nil, nil
				}
			},
			validate: validation.Lease, validateUpdate: validation.LeaseUpdate, putCreates: true, needsVersion: true,
		}.strategy(),
	}
}
