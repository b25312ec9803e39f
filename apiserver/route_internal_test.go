package apiserver

import (
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestPathsAreAimedAtWhatTheyName(t *testing.T) {
	core, apps := schema.GroupVersion{Version: "v1"}, schema.GroupVersion{Group: "apps", Version: "v1"}
	for path, want := range map[string]target{
		"/api/v1/configmaps":                                   {gv: core, resource: "configmaps"},
		"/api/v1/namespaces/a/configmaps":                      {gv: core, resource: "configmaps", namespaced: true},
		"/api/v1/namespaces/{namespace}/configmaps/{name}":     {gv: core, resource: "configmaps", namespaced: true, named: true},
		"/apis/apps/v1/namespaces/a/deployments/b/scale":       {gv: apps, resource: "deployments", sub: "scale", namespaced: true, named: true},
		"/api/v1/namespaces":                                   {gv: core, resource: "namespaces"},
		"/api/v1/namespaces/a":                                 {gv: core, resource: "namespaces", named: true},
		"/api/v1/namespaces/a/status":                          {gv: core, resource: "namespaces", sub: "status", named: true},
		"/api/v1/namespaces/status/pods":                       {gv: core, resource: "pods", namespaced: true},
		"/api/v1/nodes/a/status":                               {gv: core, resource: "nodes", sub: "status", named: true},
		"/api/v1/namespaces/namespaces/namespaces/a/finalize":  {gv: core, resource: "namespaces", sub: "finalize", namespaced: true, named: true},
		"/api/v1/watch/pods":                                   {gv: core, resource: "watch", named: true},
		"/apis/apps/v1/namespaces/{namespace}/statefulsets":    {gv: apps, resource: "statefulsets", namespaced: true},
		"/apis/apps/v1/namespaces/namespaces/statefulsets/abc": {gv: apps, resource: "statefulsets", namespaced: true, named: true},
	} {
		want.method = "GET"
		if got, ok := aim("GET", path); !ok || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", path, got, ok, want)
		}
	}
	for _, path := range []string{
		"", "/", "/api", "/api/", "/api/v1", "/api/v1/", "/apis", "/apis/apps", "/apis/apps/v1", "/apis/apps/v1/", "/healthz",
		"/api/v1//configmaps", "/api/v1/configmaps/", "/api/v1/namespaces/a/", "/api/v1/namespaces//configmaps",
		"/api/v1/namespaces/a/pods/b/proxy/c", "/api/v1/nodes/a/proxy/c/d/e", "/api/v1/nodes/a/proxy/c", "/apix/v1/pods",
	} {
		if got, ok := aim("GET", path); ok {
			t.Errorf("%s: got %+v, want none", path, got)
		}
	}
}

func TestShortcutTakesOnlyClientsThatTakeItsTypes(t *testing.T) {
	for accept, want := range map[string]bool{
		"": true, "*/*": true, "application/json": true, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json": true,
		"text/html, application/vnd.kubernetes.protobuf": true, "application/yaml": false, "text/plain": false, "application/*": false,
	} {
		if got := accepted(accept); got != want {
			t.Errorf("%q: got %v, want %v", accept, got, want)
		}
	}
}
