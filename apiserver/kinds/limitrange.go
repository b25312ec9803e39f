package kinds

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// LimitRange declares the bounds of what objects of a namespace may ask for.
func LimitRange() registry.Kind {
	k := namespaced[corev1.LimitRange, corev1.LimitRangeList](corev1.SchemeGroupVersion, "limitranges", "limits")
	k.Default = defaults(defaulting.LimitRange)
	k.Strategy = rules[*corev1.LimitRange]{
		create: func(l *corev1.LimitRange) {
			if l.Name == "" {
				l.Name = string(uuid.NewUUID())
			}
		},
		validate:       validation.LimitRange,
		validateUpdate: func(l, _ *corev1.LimitRange) field.ErrorList { return validation.LimitRange(l) },
		putCreates:     true,
	}.strategy()
	return k
}
