package kinds

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

const enforceMountableSecrets = "kubernetes.io/enforce-mountable-secrets"

// ServiceAccount declares service accounts.
func ServiceAccount() registry.Kind {
	return registry.Kind{
		Resource: corev1.SchemeGroupVersion.WithResource("serviceaccounts"), Kind: "ServiceAccount", Singular: "serviceaccount",
		ShortNames: []string{"sa"}, Namespaced: true, ReturnDeleted: true,
		New:     func() runtime.Object { return &corev1.ServiceAccount{} },
		NewList: func() runtime.Object { return &corev1.ServiceAccountList{} },
		Columns: []metav1.TableColumnDefinition{ageColumn()},
		Row:     row(func(a *corev1.ServiceAccount) []any { return []any{age(a.CreationTimestamp)} }),
		Strategy: rules[*corev1.ServiceAccount]{
			create:   func(a *corev1.ServiceAccount) { onlyNames(a.Secrets) },
			update:   func(a, _ *corev1.ServiceAccount) { onlyNames(a.Secrets) },
			validate: validation.ServiceAccount, validateUpdate: validation.ServiceAccountUpdate,
			warn: func(a, old *corev1.ServiceAccount) []string {
				had := false
				if old != nil {
					_, had = old.Annotations[enforceMountableSecrets]
				}
				if _, ok := a.Annotations[enforceMountableSecrets]; ok && !had {
					return []string{"metadata.annotations[" + enforceMountableSecrets + "]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"}
				}
				return nil
			},
		}.strategy(),
	}
}

// onlyNames leaves of references to secrets what counts: all are of the
// account's own namespace.
func onlyNames(secrets []corev1.ObjectReference) {
	for i, s := range secrets {
		secrets[i] = corev1.ObjectReference{Name: s.Name}
	}
}
