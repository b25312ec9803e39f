package apiserver_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestServesTellsOwnKindsFromOthers(t *testing.T) {
	f := start(t)
	for resource, want := range map[schema.GroupResource]bool{
		{Resource: "pods"}: true, {Group: "batch", Resource: "cronjobs"}: true, {Group: "apps", Resource: "statefulsets"}: true,
		{Group: "apps", Resource: "pods"}: false, {Group: "cert-manager.io", Resource: "issuers"}: false,
	} {
		if got := f.Serves(resource); got != want {
			t.Errorf("%s: got %t, want %t", resource, got, want)
		}
	}
}
