package fuzz_test

import (
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

func bodyTypes() []string {
	return []string{asJSON, asYAML, asProtobuf, asCBOR}
}

// endpoint is what may be written to at a place: the collection by POST, an
// object by PUT, and its subresources.
func (p *place) endpoint(n byte) (method, sub string) {
	if p.sample == nil || !p.stored() {
		return http.MethodPost, ""
	}
	i := int(n) % (2 + len(p.subs))
	if i == 0 {
		return http.MethodPost, ""
	}
	if i > 1 {
		sub = p.subs[i-2].name
		if !slices.Contains(p.subs[i-2].verbs, "update") {
			return http.MethodPost, sub
		}
	}
	return http.MethodPut, sub
}

// FuzzBodies writes any bytes to every kind and to every subresource that takes
// a body, in every encoding. What is accepted must come back.
func FuzzBodies(f *testing.F) {
	t := newTarget(f)
	for n := range t.places {
		p := &t.places[n]
		if p.sample == nil {
			continue
		}
		f.Add(byte(n), byte(0), byte(0), p.sample)
		if obj, _, err := t.codecs.UniversalDeserializer().Decode(p.sample, nil, nil); err == nil {
			if info, ok := runtime.SerializerInfoForMediaType(t.codecs.SupportedMediaTypes(), asProtobuf); ok {
				if raw, err := runtime.Encode(info.Serializer, obj); err == nil {
					f.Add(byte(n), byte(0), byte(2), raw)
				}
			}
		}
		for i := range p.subs {
			f.Add(byte(n), byte(2+i), byte(0), p.sample)
		}
	}
	f.Add(byte(0), byte(0), byte(1), []byte("a: &a [*a, *a]"))
	f.Add(byte(9), byte(0), byte(1), []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y}\ndata: {a: 'yes', b: \"1e3\"}\n"))
	f.Fuzz(func(tt *testing.T, n, where, how byte, body []byte) {
		p := t.place(n)
		method, sub := p.endpoint(where)
		m := message{method: method, path: p.path, contentType: bodyTypes()[int(how)%len(bodyTypes())], accept: asJSON, body: body}
		if method == http.MethodPut || sub != "" {
			name := t.put(tt, p)
			defer t.remove(tt, p, name)
			m.path = p.at(name, sub)
		}
		t.accepted(tt, p, sub, t.ask(tt, m))
	})
}

// accepted checks what was stored, and takes it away again.
func (t *target) accepted(tb testing.TB, p *place, sub string, got reply) {
	tb.Helper()
	if got.code != http.StatusCreated && got.code != http.StatusOK {
		return
	}
	var o unstructured.Unstructured
	if o.UnmarshalJSON(got.body) != nil || o.GetName() == "" || !p.stored() || o.GroupVersionKind() != p.gvk {
		return // a review, a Scale, a Status
	}
	if got.code == http.StatusCreated && sub == "" {
		defer t.remove(tb, p, o.GetName())
	}
	t.comesBack(tb, p, got.body)
}

// FuzzObjects changes the good object of every kind before it is created,
// and again before its update and that of its status.
func FuzzObjects(f *testing.F) {
	t := newTarget(f)
	words := t.words()
	for n := range t.places {
		f.Add(byte(n), false, []byte{})
		f.Add(byte(n), true, []byte{1, 5, 3, 200, 4, 9, 77})
		f.Add(byte(n), false, []byte{2, 3, 255, 1, 200, 4, 90, 177, 6, 2, 1, 0, 60, 3, 5, 8})
	}
	f.Fuzz(func(tt *testing.T, n byte, loose bool, in []byte) {
		p := t.place(n)
		if p.sample == nil {
			return
		}
		c := &change{in: in, words: words}
		changed := func(js []byte) []byte {
			var obj any = &unstructured.Unstructured{}
			if typed, _, err := t.codecs.UniversalDeserializer().Decode(js, nil, nil); err == nil && !loose {
				obj = typed
			} else if err := obj.(*unstructured.Unstructured).UnmarshalJSON(js); err != nil { //nolint:forcetypeassert // it was made so
				tt.Fatal(err)
			}
			for range 1 + c.pick(4) {
				if u, ok := obj.(*unstructured.Unstructured); ok {
					c.at(reflect.ValueOf(u.Object))
				} else {
					c.at(reflect.ValueOf(obj))
				}
			}
			out, err := json.Marshal(obj)
			if err != nil {
				return nil
			}
			return out
		}
		t.accepted(tt, p, "", t.json(tt, http.MethodPost, p.path, changed(p.sample)))
		if !slices.Contains(p.verbs, "update") {
			return
		}
		name := t.put(tt, p)
		defer t.remove(tt, p, name)
		for where := range 2 + len(p.subs) {
			method, sub := p.endpoint(byte(where))
			now := t.json(tt, http.MethodGet, p.at(name, ""), nil)
			if method == http.MethodPut && now.code == http.StatusOK {
				t.accepted(tt, p, sub, t.json(tt, method, p.at(name, sub), changed(now.body)))
			}
		}
	})
}

func patchTypes() []string {
	return []string{
		"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json",
		"application/apply-patch+yaml", "application/apply-patch+cbor",
	}
}

// FuzzPatches changes an object of any kind, or a subresource of it, by any bytes.
func FuzzPatches(f *testing.F) {
	t := newTarget(f)
	apply := byte(3)
	for n := range t.places {
		p := &t.places[n]
		if p.sample == nil {
			continue
		}
		for sub := range 1 + len(p.subs) {
			f.Add(byte(n), byte(sub), apply, p.sample)
		}
		f.Add(byte(n), byte(0), byte(0), []byte(`[{"op":"add","path":"/metadata/labels","value":{"a":"b"}},{"op":"test","path":"/spec/x","value":null},{"op":"move","from":"/spec","path":"/spec/x"}]`))
		f.Add(byte(n), byte(1), byte(1), []byte(`{"spec":null,"status":{"conditions":[{"type":"A","status":"True"}],"replicas":-1}}`))
		f.Add(byte(n), byte(0), byte(2), []byte(`{"metadata":{"$deleteFromPrimitiveList/finalizers":["x"],"$retainKeys":["name"],"labels":{"$patch":"replace","c":"d"}},"spec":{"$patch":"delete"}}`))
		if y, err := yaml.JSONToYAML(p.sample); err == nil {
			f.Add(byte(n), byte(0), apply, y)
		}
	}
	deployments := byte(slices.IndexFunc(t.places, func(p place) bool { return p.gvk.Kind == "Deployment" }))
	f.Add(deployments, byte(0), byte(0), []byte(`[{"op":"copy","from":"/spec/template/spec/containers/0","path":"/spec/template/spec/containers/-"}]`))
	f.Add(deployments, byte(0), byte(1), []byte(`{"spec":{"replicas":null,"template":{"spec":{"containers":[]}}}}`))
	f.Add(deployments, byte(0), byte(2), []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"$patch":"delete","name":"A"}]},{"$patch":"replace"}],"$setElementOrder/containers":[{"name":"d"}]}}}}`))
	f.Add(deployments, byte(0), byte(2), []byte(`{"spec":{"$retainKeys":["strategy"],"strategy":{"type":"Recreate"}},"metadata":{"$deleteFromPrimitiveList/finalizers":["x"]}}`))
	f.Fuzz(func(tt *testing.T, n, where, how byte, patch []byte) {
		p := t.place(n)
		if p.sample == nil || !slices.Contains(p.verbs, "patch") {
			return
		}
		name := t.put(tt, p)
		defer t.remove(tt, p, name)
		sub := ""
		if i := int(where) % (1 + len(p.subs)); i > 0 {
			sub = p.subs[i-1].name
		}
		m := message{method: http.MethodPatch, path: p.at(name, sub), contentType: patchTypes()[int(how)%len(patchTypes())], accept: asJSON, body: patch}
		if int(how)%len(patchTypes()) >= int(apply) {
			m.path += "?fieldManager=fuzz&force=true"
		}
		t.accepted(tt, p, sub, t.ask(tt, m))
	})
}

// inDefault reports what in a list is neither of the namespace default nor of none.
func inDefault(tb testing.TB, body []byte) []metav1.PartialObjectMetadata {
	tb.Helper()
	var list metav1.PartialObjectMetadataList
	if err := json.Unmarshal(body, &list); err != nil {
		tb.Fatal(err)
	}
	for _, o := range list.Items {
		if o.Namespace != "" && o.Namespace != metav1.NamespaceDefault {
			tb.Fatalf("a list of the namespace default has %s/%s", o.Namespace, o.Name)
		}
	}
	return list.Items
}
