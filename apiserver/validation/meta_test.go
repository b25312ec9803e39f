package validation_test

import (
	"testing"

	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/apiserver/validation"
)

func TestFinalizersWithoutAPrefixAreKubernetesOwn(t *testing.T) {
	for finalizer, refused := range map[string]bool{
		"kubernetes": false, "orphan": false, "foregroundDeletion": false, "example.com/x": false, "http": true, "Orphan": true,
	} {
		m := metav1.ObjectMeta{Name: "x", ResourceVersion: "1", Finalizers: []string{finalizer}}
		if got := len(validation.Meta(&m, false, apimachinery.NameIsDNSSubdomain)) > 0; got != refused {
			t.Errorf("created with the finalizer %s: refused is %t, want %t", finalizer, got, refused)
		}
		if got := len(validation.MetaUpdate(&m, &metav1.ObjectMeta{Name: "x", ResourceVersion: "1"})) > 0; got != refused {
			t.Errorf("updated with the finalizer %s: refused is %t, want %t", finalizer, got, refused)
		}
	}
}
