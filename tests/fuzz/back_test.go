package fuzz_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"sigs.k8s.io/yaml"

	"skein.dev/skein/api/mesh/v1alpha1"
)

const (
	asJSON     = "application/json"
	asYAML     = "application/yaml"
	asProtobuf = "application/vnd.kubernetes.protobuf"
	asCBOR     = "application/cbor"
)

// types decodes every kind that has a Go type.
func types(tb testing.TB) serializer.CodecFactory {
	tb.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		scheme.AddToScheme, apiextensionsv1.AddToScheme, apiregistrationv1.AddToScheme, v1alpha1.AddToScheme,
	} {
		if err := add(s); err != nil {
			tb.Fatal(err)
		}
	}
	return serializer.NewCodecFactory(s)
}

// comesBack compares an object with what the server said when it stored it,
// in each encoding, asks for it in each form, and gives it back unchanged,
// which changes nothing.
func (t *target) comesBack(tb testing.TB, p *place, stored []byte) {
	tb.Helper()
	var created, read unstructured.Unstructured
	if err := created.UnmarshalJSON(stored); err != nil {
		tb.Fatalf("%s: what was stored is no object: %v", p.path, err)
	}
	at := p.at(created.GetName(), "")
	got := t.json(tb, http.MethodGet, at, nil)
	if got.code != http.StatusOK {
		return // gone: it had no finalizer left, or a collector was faster
	}
	if err := read.UnmarshalJSON(got.body); err != nil {
		tb.Fatal(err)
	}
	same := read.GetResourceVersion() == created.GetResourceVersion()
	if same {
		if d := cmp.Diff(created.Object, read.Object); d != "" {
			tb.Fatalf("%s is not what was stored (-stored +read):\n%s", at, d)
		}
	}
	t.encodings(tb, at, got.body)
	for _, form := range []string{"Table;v=v1;g=meta.k8s.io", "PartialObjectMetadata;v=v1;g=meta.k8s.io"} {
		if form := t.ask(tb, message{method: http.MethodGet, path: at, accept: asJSON + ";as=" + form}); form.code != http.StatusOK {
			tb.Fatalf("%s as %s: %d %s", at, form.body, form.code, form.body)
		}
	}
	if !slices.Contains(p.verbs, "update") {
		return
	}
	// The first time the defaults of fields that were set on creation are written.
	for range 2 {
		again := t.json(tb, http.MethodPut, at, got.body)
		if again.code == http.StatusConflict || again.code == http.StatusNotFound {
			return
		}
		var after unstructured.Unstructured
		if again.code != http.StatusOK || after.UnmarshalJSON(again.body) != nil {
			tb.Fatalf("%s is refused unchanged: %d %s\n%s", at, again.code, again.body, got.body)
		}
		if after.GetResourceVersion() == read.GetResourceVersion() {
			return
		}
		read, got = after, again
	}
	tb.Fatalf("%s given back unchanged is a new version each time: %s", at, got.body)
}

// encodings compares an object in the other encodings with its JSON.
func (t *target) encodings(tb testing.TB, at string, js []byte) {
	tb.Helper()
	var want any
	if err := json.Unmarshal(js, &want); err != nil {
		tb.Fatal(err)
	}
	ya := t.ask(tb, message{method: http.MethodGet, path: at, accept: asYAML})
	cb := t.ask(tb, message{method: http.MethodGet, path: at, accept: asCBOR})
	pb := t.ask(tb, message{method: http.MethodGet, path: at, accept: asProtobuf})
	if now := t.json(tb, http.MethodGet, at, nil); !bytes.Equal(now.body, js) {
		return // a controller of the server's has changed it
	}
	if cb.code == http.StatusOK {
		tb.Fatal("CBOR is served now: compare it too")
	}
	if ya.code == http.StatusOK {
		var got any
		if err := yaml.Unmarshal(ya.body, &got); err != nil {
			tb.Fatalf("%s in YAML: %v\n%s", at, err, ya.body)
		}
		if d := cmp.Diff(want, got); d != "" {
			tb.Fatalf("%s differs in YAML (-JSON +YAML):\n%s", at, d)
		}
	} else if !bytes.Contains(ya.body, []byte(noYAML)) {
		tb.Fatalf("%s in YAML: %d %s", at, ya.code, ya.body)
	}
	if pb.code == http.StatusNotAcceptable {
		return
	}
	if strings.HasPrefix(at, "/apis/api") && bytes.ContainsRune(js, utf8.RuneError) {
		return // the servers of definitions and of other APIs have encodings of their own, that take any bytes for text
	}
	typed, _, err := t.codecs.UniversalDeserializer().Decode(js, nil, nil)
	if runtime.IsNotRegisteredError(err) {
		return
	}
	if err != nil {
		tb.Fatalf("%s: what was stored cannot be read: %v", at, err)
	}
	obj, _, err := t.codecs.UniversalDeserializer().Decode(pb.body, nil, nil)
	if err != nil {
		tb.Fatalf("%s in protobuf: %d %v", at, pb.code, err)
	}
	a, err := json.Marshal(typed)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := json.Marshal(obj)
	if err != nil {
		tb.Fatal(err)
	}
	if string(a) != string(b) {
		tb.Fatalf("%s differs in protobuf (-JSON +protobuf):\n%s", at, cmp.Diff(string(a), string(b)))
	}
}
