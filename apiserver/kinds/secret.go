package kinds

import (
	"crypto/tls"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// Secret declares secrets.
func Secret() registry.Kind {
	return registry.Kind{
		Resource: corev1.SchemeGroupVersion.WithResource("secrets"), Kind: "Secret", Singular: "secret", Namespaced: true, Thin: true,
		New: func() runtime.Object { return &corev1.Secret{} }, NewList: func() runtime.Object { return &corev1.SecretList{} },
		Columns: []metav1.TableColumnDefinition{
			str("Type", describe(corev1.Secret{}, "type")), str("Data", describe(corev1.Secret{}, "data")), ageColumn(),
		},
		Row: row(func(s *corev1.Secret) []any {
			return []any{string(s.Type), int64(len(s.Data)), age(s.CreationTimestamp)}
		}),
		Select:  selects(func(s *corev1.Secret) fields.Set { return fields.Set{"type": string(s.Type)} }),
		Default: defaults(defaulting.Secret),
		Strategy: rules[*corev1.Secret]{
			update: func(s, old *corev1.Secret) {
				if s.Type == "" {
					s.Type = old.Type
				}
			},
			validate: validation.Secret, validateUpdate: validation.SecretUpdate, warn: warnSecret,
		}.strategy(),
	}
}

func warnSecret(s, _ *corev1.Secret) []string {
	if s.Type != corev1.SecretTypeTLS {
		return nil
	}
	if _, err := tls.X509KeyPair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey]); err != nil {
		return []string{err.Error()}
	}
	return nil
}
