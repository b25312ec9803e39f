package fuzz_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
)

const (
	asJSON     = "application/json"
	asProtobuf = "application/vnd.kubernetes.protobuf"
)

func bodyTypes() []string {
	return []string{asJSON, "application/yaml", asProtobuf, "application/cbor"}
}

// FuzzBodies creates objects of every kind from any bytes, reads back what was
// accepted and deletes it.
func FuzzBodies(f *testing.F) {
	t := newTarget(f)
	seeds := t.samples(f)
	for _, n := range numbers(seeds) {
		f.Add(n, byte(0), seeds[n])
		if obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(seeds[n], nil, nil); err == nil {
			if info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), asProtobuf); ok {
				if raw, err := runtime.Encode(info.Serializer, obj); err == nil {
					f.Add(n, byte(2), raw)
				}
			}
		}
	}
	f.Add(byte(0), byte(1), []byte("a: &a [*a, *a]"))
	f.Fuzz(func(tt *testing.T, n, how byte, body []byte) {
		path := t.paths[int(n)%len(t.paths)]
		got := t.ask(tt, http.MethodPost, path, bodyTypes()[int(how)%len(bodyTypes())], asJSON, body)
		if got.code != http.StatusCreated {
			return
		}
		var created unstructured.Unstructured
		if err := created.UnmarshalJSON(got.body); err != nil || created.GetName() == "" {
			return // a review, not an object
		}
		at := path + "/" + url.PathEscape(created.GetName())
		defer t.ask(tt, http.MethodDelete, at+"?gracePeriodSeconds=0", asJSON, asJSON, nil)
		comesBack(tt, t, at, &created)
	})
}

// comesBack reads an object in both encodings and compares it with what the
// server said when it stored it.
func comesBack(t *testing.T, on *target, at string, created *unstructured.Unstructured) {
	t.Helper()
	got := on.ask(t, http.MethodGet, at, asJSON, asJSON, nil)
	if got.code != http.StatusOK {
		return // a controller or a collector was faster
	}
	var read unstructured.Unstructured
	if err := read.UnmarshalJSON(got.body); err != nil {
		t.Fatal(err)
	}
	if read.GetResourceVersion() == created.GetResourceVersion() {
		if d := cmp.Diff(created.Object, read.Object); d != "" {
			t.Fatalf("%s is not what was created (-created +read):\n%s", at, d)
		}
	}
	pb := on.ask(t, http.MethodGet, at, asJSON, asProtobuf+", "+asJSON, nil)
	obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(pb.body, nil, nil)
	if err != nil {
		return // a kind that has no protobuf, or none that client-go knows
	}
	js, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	typed, _, err := scheme.Codecs.UniversalDeserializer().Decode(got.body, nil, nil)
	if err != nil {
		t.Fatalf("%s: what was stored cannot be read: %v", at, err)
	}
	want, err := json.Marshal(typed)
	if err != nil {
		t.Fatal(err)
	}
	if string(js) != string(want) {
		t.Fatalf("%s differs in protobuf (-JSON +protobuf):\n%s", at, cmp.Diff(string(want), string(js)))
	}
}

func patchTypes() []string {
	return []string{
		"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json",
		"application/apply-patch+yaml",
	}
}

// FuzzPatches changes a Deployment by any bytes.
func FuzzPatches(f *testing.F) {
	t := newTarget(f)
	const path = "/apis/apps/v1/namespaces/default/deployments"
	web := []byte(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"x","env":[{"name":"A","value":"b"}],"ports":[{"containerPort":80}]}]}}}}`)
	f.Add(byte(0), []byte(`[{"op":"replace","path":"/spec/replicas","value":3},{"op":"test","path":"/spec/x","value":null},{"op":"move","from":"/spec","path":"/spec/template"}]`))
	f.Add(byte(0), []byte(`[{"op":"copy","from":"/spec/template/spec/containers/0","path":"/spec/template/spec/containers/-"}]`))
	f.Add(byte(1), []byte(`{"spec":{"replicas":null,"template":{"spec":{"containers":[]}}}}`))
	f.Add(byte(2), []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"$patch":"delete","name":"A"}]},{"$patch":"replace"}],"$setElementOrder/containers":[{"name":"d"}]}}}}`))
	f.Add(byte(2), []byte(`{"spec":{"$retainKeys":["strategy"],"strategy":{"type":"Recreate"}},"metadata":{"$deleteFromPrimitiveList/finalizers":["x"]}}`))
	f.Add(byte(3), web)
	f.Add(byte(3), []byte("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 2}\n"))
	f.Fuzz(func(tt *testing.T, how byte, patch []byte) {
		if got := t.ask(tt, http.MethodPost, path, asJSON, asJSON, web); got.code != http.StatusCreated && got.code != http.StatusConflict {
			tt.Fatalf("create: %d %s", got.code, got.body)
		}
		defer t.ask(tt, http.MethodDelete, path+"/web", asJSON, asJSON, nil)
		for _, sub := range []string{"", "/status", "/scale"} {
			at := path + "/web" + sub + "?fieldManager=fuzz&force=true"
			kind := patchTypes()[int(how)%len(patchTypes())]
			if how%4 != 3 {
				at = path + "/web" + sub
			}
			got := t.ask(tt, http.MethodPatch, at, kind, asJSON, patch)
			var patched unstructured.Unstructured
			if got.code == http.StatusOK && sub == "" && patched.UnmarshalJSON(got.body) == nil {
				comesBack(tt, t, path+"/web", &patched)
			}
		}
	})
}

// FuzzLists asks for pages with any token, selector, version and limit.
func FuzzLists(f *testing.F) {
	t := newTarget(f)
	token := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	f.Add(byte(0), token(`{"v":"meta.k8s.io/v1","rv":5,"start":"a\u0000"}`), "a=b", "metadata.name=x", "0", int64(1))
	f.Add(byte(1), token(`{"v":"meta.k8s.io/v1","rv":-1,"start":"../../secrets/x"}`), "a in (b,c),!d", "spec.nodeName!=", "", int64(0))
	f.Add(byte(2), "", "a notin ()", "status.phase==Running,", "99999999999", int64(-1))
	f.Fuzz(func(tt *testing.T, n byte, cont, labels, fields, version string, limit int64) {
		q := url.Values{"timeoutSeconds": {"1"}}
		for k, v := range map[string]string{"continue": cont, "labelSelector": labels, "fieldSelector": fields, "resourceVersion": version} {
			if v != "" {
				q.Set(k, v)
			}
		}
		if limit != 0 {
			q.Set("limit", strconv.FormatInt(limit, 10))
		}
		path := t.paths[int(n)%len(t.paths)]
		got := t.ask(tt, http.MethodGet, path+"?"+q.Encode(), asJSON, asJSON, nil)
		if got.code != http.StatusOK {
			return
		}
		var list metav1.PartialObjectMetadataList
		if err := json.Unmarshal(got.body, &list); err != nil {
			tt.Fatal(err)
		}
		if limit > 0 && int64(len(list.Items)) > limit {
			tt.Fatalf("%d items for a limit of %d", len(list.Items), limit)
		}
		for _, o := range list.Items {
			if o.Namespace != "" && o.Namespace != metav1.NamespaceDefault {
				tt.Fatalf("a list of the namespace default has %s/%s", o.Namespace, o.Name)
			}
		}
	})
}

// FuzzNames asks for objects by any names: no name leads out of its namespace.
func FuzzNames(f *testing.F) {
	t := newTarget(f)
	secret := []byte(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"hidden"},"stringData":{"a":"b"}}`)
	if got := t.ask(f, http.MethodPost, "/api/v1/namespaces/kube-system/secrets", asJSON, asJSON, secret); got.code != http.StatusCreated {
		f.Fatalf("create: %d %s", got.code, got.body)
	}
	for _, s := range []string{"../../kube-system/secrets/hidden", "..", ".", "a\x00b", "%2e%2e/x", "/", "kube-system/hidden"} {
		f.Add("default", s)
		f.Add(s, "hidden")
	}
	f.Fuzz(func(tt *testing.T, namespace, name string) {
		if namespace == metav1.NamespaceSystem {
			return
		}
		got := t.ask(tt, http.MethodGet, "/api/v1/namespaces/"+url.PathEscape(namespace)+"/secrets/"+url.PathEscape(name), asJSON, asJSON, nil)
		var o metav1.PartialObjectMetadata
		if got.code == http.StatusOK && json.Unmarshal(got.body, &o) == nil && o.Kind == "Secret" && o.Name == "hidden" {
			tt.Fatalf("namespace %q, name %q: got %s/%s", namespace, name, o.Namespace, o.Name)
		}
		body, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name, "namespace": namespace}})
		if err != nil {
			tt.Fatal(err)
		}
		got = t.ask(tt, http.MethodPost, "/api/v1/namespaces/default/configmaps", asJSON, asJSON, body)
		if got.code == http.StatusCreated {
			if namespace != "" && namespace != metav1.NamespaceDefault {
				tt.Fatalf("created an object of namespace %q in default", namespace)
			}
			t.ask(tt, http.MethodDelete, "/api/v1/namespaces/default/configmaps/"+url.PathEscape(name), asJSON, asJSON, nil)
		}
	})
}
