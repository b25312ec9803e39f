package kinds

import (
	"maps"
	"slices"

	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// RuntimeClass declares the ways in which nodes run containers.
func RuntimeClass() registry.Kind {
	k := declare[nodev1.RuntimeClass, nodev1.RuntimeClassList](nodev1.SchemeGroupVersion, "runtimeclasses")
	k.Columns = []metav1.TableColumnDefinition{str("Handler", ""), ageColumn()}
	k.Row = row(func(c *nodev1.RuntimeClass) []any { return []any{c.Handler, age(c.CreationTimestamp)} })
	k.Default = defaults(defaulting.RuntimeClass)
	k.Strategy = rules[*nodev1.RuntimeClass]{
		validate: validation.RuntimeClass, validateUpdate: validation.RuntimeClassUpdate, needsVersion: true, putCreates: true,
		warn: func(c, _ *nodev1.RuntimeClass) (warnings []string) {
			if c.Scheduling == nil {
				return nil
			}
			for _, key := range slices.Sorted(maps.Keys(c.Scheduling.NodeSelector)) {
				if text, ok := replacedLabel(key); ok {
					warnings = append(warnings, "scheduling.nodeSelector: "+text)
				}
			}
			return warnings
		},
	}.strategy()
	return k
}
