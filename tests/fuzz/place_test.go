package fuzz_test

import (
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"skein.dev/skein/tests/realapi"
)

// place is a collection that the server has.
type place struct {
	path  string
	gvk   schema.GroupVersionKind
	verbs []string
	subs  []sub
	// sample is a good object as JSON; nil where none is stored.
	sample []byte
	name   string
}

type sub struct {
	name  string
	verbs []string
}

// stored reports whether what is created can be asked for.
func (p *place) stored() bool { return slices.Contains(p.verbs, "get") }

// at is the path of an object, or of one of its subresources.
func (p *place) at(name, sub string) string {
	at := p.path + "/" + name
	if sub != "" {
		at += "/" + sub
	}
	return at
}

// definition is a kind of a user's with all that a schema can ask for.
const definition = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: geese.fuzz.example.com}
spec:
  group: fuzz.example.com
  scope: Namespaced
  names: {plural: geese, singular: goose, kind: Goose, listKind: GooseList, shortNames: [gs], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size, labelSelectorPath: .status.selector}
    selectableFields: [{jsonPath: .spec.voice}]
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    - {name: Born, type: date, jsonPath: .spec.born}
    - {name: Voice, type: string, jsonPath: ".spec.calls[*].voice"}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            x-kubernetes-validations:
            - {rule: "!has(self.size) || self.size < 100", message: too large}
            - {rule: "!has(oldSelf.voice) || self.voice == oldSelf.voice", message: voice stays}
            properties:
              size: {type: integer, format: int32, default: 1, minimum: 0}
              weight: {type: number, multipleOf: 0.5}
              voice: {type: string, enum: [honk, hiss, ""], default: honk}
              born: {type: string, format: date-time}
              ring: {type: string, format: byte, maxLength: 40}
              port: {x-kubernetes-int-or-string: true, anyOf: [{type: integer}, {type: string}]}
              free: {type: object, x-kubernetes-preserve-unknown-fields: true}
              pod: {type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true}
              tags: {type: array, x-kubernetes-list-type: set, maxItems: 5, items: {type: string, pattern: "^[a-z]+$", maxLength: 9}}
              calls:
                type: array
                maxItems: 5
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items:
                  type: object
                  required: [name]
                  properties: {name: {type: string, maxLength: 9}, voice: {type: string, nullable: true, default: honk}}
              notes: {type: object, additionalProperties: {type: string}, maxProperties: 5}
          status: {type: object, properties: {size: {type: integer}, selector: {type: string}}}
`

const goose = `{"apiVersion":"fuzz.example.com/v1","kind":"Goose","metadata":{"name":"g","finalizers":["a.example.com/b"]},"spec":{"size":3,"weight":1.5,"born":"2026-01-02T03:04:05Z","ring":"AAEC","port":"http","free":{"a":[1,null,{"b":1e3}]},"pod":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","labels":{"a":"b"}}},"tags":["a","b"],"calls":[{"name":"a"},{"name":"b","voice":null}],"notes":{"x":"y"}},"status":{"size":2,"selector":"a=b"}}`

// define makes the kind of a user's.
func (t *target) define(tb testing.TB) {
	tb.Helper()
	js, err := yaml.YAMLToJSON([]byte(definition))
	if err != nil {
		tb.Fatal(err)
	}
	if got := t.json(tb, http.MethodPost, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", js); got.code != http.StatusCreated {
		tb.Fatalf("define: %d %s", got.code, got.body)
	}
	realapi.Eventually(tb, "the kind of a user's is served", func() bool {
		return t.json(tb, http.MethodGet, "/apis/fuzz.example.com/v1/namespaces/default/geese", nil).code == http.StatusOK
	})
}

// survey finds the places by asking the server what it has.
func (t *target) survey(tb testing.TB, root string) {
	tb.Helper()
	samples := samples(tb, root)
	var groups metav1.APIGroupList
	t.read(tb, "/apis", &groups)
	versions := []string{"/api/v1"}
	for _, g := range groups.Groups {
		for _, v := range g.Versions {
			versions = append(versions, "/apis/"+v.GroupVersion)
		}
	}
	slices.Sort(versions)
	for _, at := range versions {
		var list metav1.APIResourceList
		t.read(tb, at, &list)
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			tb.Fatal(err)
		}
		found := map[string]*place{}
		for _, r := range list.APIResources {
			if strings.Contains(r.Name, "/") || !slices.Contains(r.Verbs, "create") {
				continue
			}
			path := at
			if r.Namespaced {
				path += "/namespaces/default"
			}
			found[r.Name] = &place{path: path + "/" + r.Name, gvk: gv.WithKind(r.Kind), verbs: r.Verbs}
		}
		for _, r := range list.APIResources {
			of, name, _ := strings.Cut(r.Name, "/")
			if p := found[of]; p != nil && name != "" && !slices.Contains(connected(), name) {
				p.subs = append(p.subs, sub{name, r.Verbs})
			}
		}
		for _, p := range found {
			if o := samples[p.gvk]; o != nil {
				p.name = o.GetName()
				if p.sample, err = o.MarshalJSON(); err != nil {
					tb.Fatal(err)
				}
			}
			slices.SortFunc(p.subs, func(a, b sub) int { return strings.Compare(a.name, b.name) })
			t.places = append(t.places, *p)
		}
	}
	slices.SortFunc(t.places, func(a, b place) int { return strings.Compare(a.path, b.path) })
	if len(t.places) > 256 {
		tb.Fatalf("%d places: inputs can name 256", len(t.places))
	}
}

func (t *target) read(tb testing.TB, path string, into any) {
	tb.Helper()
	if err := json.Unmarshal(t.json(tb, http.MethodGet, path, nil).body, into); err != nil {
		tb.Fatalf("%s: %v", path, err)
	}
}

// samples are good objects by their kinds.
func samples(tb testing.TB, root string) map[schema.GroupVersionKind]*unstructured.Unstructured {
	tb.Helper()
	texts := []string{goose, `{apiVersion: mesh.skein.dev/v1alpha1, kind: Peer, metadata: {name: m}, spec: {serverID: s, class: Full, addresses: [192.0.2.9], port: 6443, fingerprint: '` + strings.Repeat("ab", 32) + `'}}`}
	for _, name := range []string{"kinds", "more_kinds"} {
		raw, err := os.ReadFile("../../apiserver/testdata/" + name + ".yaml")
		if err != nil {
			tb.Fatal(err)
		}
		texts = append(texts, strings.Split(string(raw), "\n---\n")...)
	}
	out := map[schema.GroupVersionKind]*unstructured.Unstructured{}
	for _, text := range texts {
		var o unstructured.Unstructured
		js, err := yaml.YAMLToJSON([]byte(text))
		if err == nil {
			err = o.UnmarshalJSON(js)
		}
		if err != nil {
			tb.Fatalf("%v\n%s", err, text)
		}
		if o.GetKind() == "ClusterTrustBundle" {
			o.Object["spec"] = map[string]any{"trustBundle": root}
		}
		out[o.GroupVersionKind()] = &o
	}
	return out
}

// put creates the sample of a place, if it has one, and returns its name.
func (t *target) put(tb testing.TB, p *place) string {
	tb.Helper()
	if p.sample == nil {
		return ""
	}
	got := t.json(tb, http.MethodPost, p.path, p.sample)
	if got.code != http.StatusCreated && got.code != http.StatusConflict {
		tb.Fatalf("create the sample at %s: %d %s", p.path, got.code, got.body)
	}
	return p.name
}

// remove takes an object away for good.
func (t *target) remove(tb testing.TB, p *place, name string) {
	tb.Helper()
	at := p.at(name, "")
	got := t.json(tb, http.MethodDelete, at+"?gracePeriodSeconds=0", nil)
	var left metav1.PartialObjectMetadata
	if got.code == http.StatusNotFound || json.Unmarshal(got.body, &left) == nil && left.Kind == "Status" {
		return
	}
	if p.gvk.Kind == "Namespace" {
		t.json(tb, http.MethodPut, at+"/finalize", []byte(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"`+left.Name+`"},"spec":{"finalizers":[]}}`))
	}
	t.ask(tb, message{
		method: http.MethodPatch, path: at, contentType: "application/merge-patch+json", accept: asJSON, body: []byte(`{"metadata":{"finalizers":null}}`),
	})
	t.json(tb, http.MethodDelete, at+"?gracePeriodSeconds=0", nil)
}
