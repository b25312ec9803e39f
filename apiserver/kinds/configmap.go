package kinds

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// ConfigMap declares config maps.
func ConfigMap() registry.Kind {
	return registry.Kind{
		Resource: corev1.SchemeGroupVersion.WithResource("configmaps"), Kind: "ConfigMap", Singular: "configmap",
		ShortNames: []string{"cm"}, Namespaced: true, Thin: true,
		New: func() runtime.Object { return &corev1.ConfigMap{} }, NewList: func() runtime.Object { return &corev1.ConfigMapList{} },
		Columns: []metav1.TableColumnDefinition{str("Data", describe(corev1.ConfigMap{}, "data")), ageColumn()},
		Row: row(func(c *corev1.ConfigMap) []any {
			return []any{int64(len(c.Data) + len(c.BinaryData)), age(c.CreationTimestamp)}
		}),
		Strategy: rules[*corev1.ConfigMap]{
			validate: validation.ConfigMap, validateUpdate: validation.ConfigMapUpdate,
		}.strategy(),
	}
}
