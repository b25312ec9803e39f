package kinds_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"skein.dev/skein/apiserver/kinds"
	"skein.dev/skein/apiserver/registry"
)

func TestFieldSelectorsTakeWhatUpstreamTakes(t *testing.T) {
	scheme, err := registry.NewScheme(kinds.All())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kind, field string
		taken       bool
	}{
		{"Pod", "spec.nodeName", true},
		{"Pod", "metadata.namespace", true},
		{"Node", "metadata.namespace", false},
		{"Namespace", "status.phase", true},
		{"Namespace", "name", false},
		{"PersistentVolume", "name", false},
		{"PersistentVolume", "metadata.namespace", true}, // for all that it has none
		{"PersistentVolumeClaim", "name", false},
		{"ConfigMap", "data", false},
	} {
		_, _, err := scheme.ConvertFieldLabel(corev1.SchemeGroupVersion.WithKind(c.kind), c.field, "x")
		if (err == nil) != c.taken {
			t.Errorf("%s by %s: %v, want it taken: %t", c.kind, c.field, err, c.taken)
		}
	}
}
