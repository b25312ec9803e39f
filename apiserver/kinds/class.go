package kinds

import (
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// PriorityClass declares priority classes.
func PriorityClass() registry.Kind {
	words := schedulingv1.PriorityClass{}
	return registry.Kind{
		Resource: schedulingv1.SchemeGroupVersion.WithResource("priorityclasses"), Kind: "PriorityClass", Singular: "priorityclass",
		ShortNames: []string{"pc"},
		New:        func() runtime.Object { return &schedulingv1.PriorityClass{} },
		NewList:    func() runtime.Object { return &schedulingv1.PriorityClassList{} },
		Columns: []metav1.TableColumnDefinition{
			num("Value", describe(words, "value")), boolean("Global-Default", describe(words, "globalDefault")), ageColumn(),
			str("PreemptionPolicy", describe(words, "preemptionPolicy")),
		},
		Row: row(func(c *schedulingv1.PriorityClass) []any {
			return []any{int64(c.Value), c.GlobalDefault, age(c.CreationTimestamp), string(valueOr(c.PreemptionPolicy, ""))}
		}),
		Default: defaults(defaulting.PriorityClass),
		Strategy: rules[*schedulingv1.PriorityClass]{
			create:   func(c *schedulingv1.PriorityClass) { c.Generation = 1 },
			validate: validation.PriorityClass, validateUpdate: validation.PriorityClassUpdate,
		}.strategy(),
	}
}

// StorageClass declares storage classes.
func StorageClass() registry.Kind {
	words := storagev1.StorageClass{}
	return registry.Kind{
		Resource: storagev1.SchemeGroupVersion.WithResource("storageclasses"), Kind: "StorageClass", Singular: "storageclass",
		ShortNames: []string{"sc"}, ReturnDeleted: true,
		New:     func() runtime.Object { return &storagev1.StorageClass{} },
		NewList: func() runtime.Object { return &storagev1.StorageClassList{} },
		Columns: []metav1.TableColumnDefinition{
			str("Provisioner", describe(words, "provisioner")), str("ReclaimPolicy", describe(words, "reclaimPolicy")),
			str("VolumeBindingMode", describe(words, "volumeBindingMode")),
			str("AllowVolumeExpansion", describe(words, "allowVolumeExpansion")), ageColumn(),
		},
		Row: row(func(c *storagev1.StorageClass) []any {
			return []any{
				c.Provisioner, string(valueOr(c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)),
				string(valueOr(c.VolumeBindingMode, storagev1.VolumeBindingImmediate)), valueOr(c.AllowVolumeExpansion, false),
				age(c.CreationTimestamp),
			}
		}),
		Marked:  effective("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"),
		Default: defaults(defaulting.StorageClass),
		Strategy: rules[*storagev1.StorageClass]{
			validate: validation.StorageClass,
			validateUpdate: func(c, old *storagev1.StorageClass) field.ErrorList {
				return append(validation.StorageClass(c), validation.StorageClassUpdate(c, old)...)
			},
			warn: warnTopologies,
		}.strategy(),
	}
}

// warnTopologies warns of labels of nodes that have new names.
func warnTopologies(c, _ *storagev1.StorageClass) (warnings []string) {
	for i, t := range c.AllowedTopologies {
		for j, e := range t.MatchLabelExpressions {
			if text, ok := replacedLabel(e.Key); ok {
				at := field.NewPath("allowedTopologies").Index(i).Child("matchLabelExpressions").Index(j).Child("key")
				warnings = append(warnings, at.String()+": "+text)
			}
		}
	}
	return warnings
}

// PodDisruptionBudget declares disruption budgets.
func PodDisruptionBudget() registry.Kind {
	amount := func(n *intstr.IntOrString) string {
		if n == nil {
			return "N/A"
		}
		return n.String()
	}
	return registry.Kind{
		Resource: policyv1.SchemeGroupVersion.WithResource("poddisruptionbudgets"), Kind: "PodDisruptionBudget", Singular: "poddisruptionbudget",
		ShortNames: []string{"pdb"}, Namespaced: true,
		New:     func() runtime.Object { return &policyv1.PodDisruptionBudget{} },
		NewList: func() runtime.Object { return &policyv1.PodDisruptionBudgetList{} },
		Columns: []metav1.TableColumnDefinition{
			str("Min Available", "The minimum number of pods that must be available."),
			str("Max Unavailable", "The maximum number of pods that may be unavailable."),
			num("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time."), ageColumn(),
		},
		Row: row(func(b *policyv1.PodDisruptionBudget) []any {
			return []any{amount(b.Spec.MinAvailable), amount(b.Spec.MaxUnavailable), int64(b.Status.DisruptionsAllowed), age(b.CreationTimestamp)}
		}),
		Strategy: rules[*policyv1.PodDisruptionBudget]{
			create: func(b *policyv1.PodDisruptionBudget) {
				b.Status, b.Generation = policyv1.PodDisruptionBudgetStatus{}, 1
			},
			update: func(b, old *policyv1.PodDisruptionBudget) {
				b.Status = old.Status
				bump(&b.ObjectMeta, &old.ObjectMeta, b.Spec, old.Spec)
			},
			validate: validation.PodDisruptionBudget, validateUpdate: validation.PodDisruptionBudgetUpdate, needsVersion: true,
		}.strategy(),
		Status: rules[*policyv1.PodDisruptionBudget]{
			update:         func(b, old *policyv1.PodDisruptionBudget) { b.Spec = old.Spec },
			validateUpdate: validation.PodDisruptionBudgetStatusUpdate,
		}.status(),
	}
}
