package apiserver_test

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"
)

const widgetDefinition = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}}}}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
`

const widget = `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w"},"spec":{"size":3}}`

// wire sends requests as they are.
type wire struct {
	t      *testing.T
	client *http.Client
	host   string
}

type answer struct {
	code int
	http.Header
	body []byte
}

func (w *wire) send(method, path string, query url.Values, accept string, body []byte) answer {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.host+path+"?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", accept)
	resp, err := w.client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, raw}
}

func (r *answer) object(t *testing.T) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal(r.body, &out); err != nil {
		t.Fatalf("%d %s: %v", r.code, r.body, err)
	}
	return out
}

// sample is one kind and where it is served.
type sample struct {
	obj   *unstructured.Unstructured
	at    string // the path of its list
	verbs []string
}

// creatable are the resources that a user creates and deletes.
func creatable(groups []*restmapper.APIGroupResources) map[string]bool {
	missing := map[string]bool{}
	for _, g := range groups {
		for version, resources := range g.VersionedResources {
			for _, r := range resources {
				if slices.Contains(r.Verbs, "create") && slices.Contains(r.Verbs, "delete") &&
					!strings.Contains(r.Name, "/") && !strings.HasSuffix(g.Group.Name, "skein.dev") {
					missing[g.Group.Name+"/"+version+" "+r.Name] = true
				}
			}
		}
	}
	return missing
}

// everyKind yields a sample of each kind that the server has itself, and a
// custom one.
func everyKind(t *testing.T, f *fixture) (all []sample) {
	t.Helper()
	c := f.client(t, f.admin(t))
	crd := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(widgetDefinition), &crd.Object); err != nil {
		t.Fatal(err)
	}
	anything, err := dynamic.NewForConfig(f.admin(t))
	if err != nil {
		t.Fatal(err)
	}
	definitions := anything.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	if _, err := definitions.Create(t.Context(), crd, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	within(t, "the custom kind is served", func() bool {
		list, err := c.Discovery().ServerResourcesForGroupVersion("example.com/v1")
		return err == nil && len(list.APIResources) > 0
	})
	groups, err := restmapper.GetAPIGroupResources(c.Discovery())
	if err != nil {
		t.Fatal(err)
	}
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	samples := widget
	for _, name := range []string{"kinds", "more_kinds"} {
		raw, err := os.ReadFile("testdata/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		samples += "\n---\n" + string(raw)
	}
	missing := creatable(groups)
	defer func() {
		for resource := range missing {
			t.Errorf("no sample of %s", resource)
		}
	}()
	for text := range strings.SplitSeq(samples, "\n---\n") {
		obj := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &obj.Object); err != nil {
			t.Fatal(err)
		}
		gvk := obj.GroupVersionKind()
		m, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		if err != nil {
			t.Fatal(err)
		}
		delete(missing, gvk.Group+"/"+gvk.Version+" "+m.Resource.Resource)
		if gvk.Kind == "ClusterTrustBundle" {
			obj.Object["spec"] = map[string]any{"trustBundle": string(f.ca.pem)}
		}
		s := sample{obj: obj, at: "/apis/" + gvk.GroupVersion().String()}
		if gvk.Group == "" {
			s.at = "/api/v1"
		}
		if m.Scope.Name() == "namespace" {
			s.at += "/namespaces/default"
		}
		s.at += "/" + m.Resource.Resource
		for _, g := range groups {
			if g.Group.Name == gvk.Group {
				for _, r := range g.VersionedResources[gvk.Version] {
					if r.Name == m.Resource.Resource {
						s.verbs = r.Verbs
					}
				}
			}
		}
		all = append(all, s)
	}
	return all
}

func (s *sample) with(change func(*unstructured.Unstructured)) []byte {
	obj := s.obj.DeepCopy()
	labels := map[string]string{"machinery": "here"}
	maps.Copy(labels, obj.GetLabels())
	obj.SetLabels(labels)
	if change != nil {
		change(obj)
	}
	raw, err := obj.MarshalJSON()
	if err != nil {
		panic(err)
	}
	return raw
}

// TestEveryKindHasTheWholeMachinery asks of each kind what the API promises
// of all of them.
func TestEveryKindHasTheWholeMachinery(t *testing.T) {
	f := start(t)
	account(t, f.client(t, f.admin(t)), "default")
	client, err := rest.HTTPClientFor(f.admin(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range everyKind(t, f) {
		t.Run(s.obj.GetAPIVersion()+" "+s.obj.GetKind(), func(t *testing.T) {
			w := &wire{t: t, client: client, host: "https://" + f.addr}
			w.fieldValidation(&s)
			w.dryRun(&s)
			if r := w.send(http.MethodPost, s.at, nil, "application/json", s.with(nil)); r.code != http.StatusCreated {
				t.Fatalf("create: %d %s", r.code, r.body)
			}
			w.forms(&s)
			w.preconditions(&s)
			w.collection(&s)
		})
	}
}

const onlyDry = "All"

// dryUpdate tries an update of what there is; the server writes to some kinds
// itself, at times between the two requests.
func (w *wire) dryUpdate(named string) answer {
	w.t.Helper()
	for tries := 0; ; tries++ {
		before := w.send(http.MethodGet, named, nil, "application/json", nil)
		obj := &unstructured.Unstructured{Object: before.object(w.t)}
		obj.SetAnnotations(map[string]string{"only": "tried"})
		raw, err := obj.MarshalJSON()
		if err != nil {
			w.t.Fatal(err)
		}
		r := w.send(http.MethodPut, named, url.Values{"dryRun": {onlyDry}}, "application/json", raw)
		if r.code != http.StatusConflict || tries == 3 {
			return r
		}
	}
}

func (w *wire) fieldValidation(s *sample) {
	w.t.Helper()
	body := s.with(func(o *unstructured.Unstructured) { o.Object["nonsense"] = "x" })
	twice := append([]byte(`{"kind":"`+s.obj.GetKind()+`",`), s.with(nil)[1:]...)
	for _, row := range []struct {
		mode, want string
		body       []byte
		code       int
	}{
		{"Strict", `unknown field "nonsense"`, body, http.StatusBadRequest},
		{"Warn", `unknown field "nonsense"`, body, http.StatusCreated},
		{"", `unknown field "nonsense"`, body, http.StatusCreated},
		{"Ignore", "", body, http.StatusCreated},
		{"Strict", `duplicate field "kind"`, twice, http.StatusBadRequest},
	} {
		query := url.Values{"dryRun": {onlyDry}}
		if row.mode != "" {
			query.Set("fieldValidation", row.mode)
		}
		r := w.send(http.MethodPost, s.at, query, "application/json", row.body)
		heard := strings.ReplaceAll(strings.Join(r.Values("Warning"), "\n"), `\"`, `"`)
		if row.code == http.StatusBadRequest {
			message, _ := r.object(w.t)["message"].(string)
			heard = message
		}
		if r.code != row.code || !strings.Contains(heard, row.want) || row.want == "" && strings.Contains(heard, "nonsense") {
			w.t.Errorf("field validation %q: got %d %q, want %d %q; %s", row.mode, r.code, heard, row.code, row.want, r.body)
		}
	}
}

func (w *wire) dryRun(s *sample) {
	w.t.Helper()
	named := s.at + "/" + s.obj.GetName()
	dry := url.Values{"dryRun": {onlyDry}}
	if r := w.send(http.MethodPost, s.at, dry, "application/json", s.with(nil)); r.code != http.StatusCreated {
		w.t.Errorf("dry create: %d %s", r.code, r.body)
	}
	if r := w.send(http.MethodGet, named, nil, "application/json", nil); r.code != http.StatusNotFound {
		w.t.Errorf("after a dry create: %d", r.code)
	}
	if r := w.send(http.MethodPost, s.at, url.Values{"dryRun": {"Some"}}, "application/json", s.with(nil)); r.code != http.StatusBadRequest && r.code != http.StatusUnprocessableEntity {
		w.t.Errorf("unknown dry run: %d %s", r.code, r.body)
	}
}

// forms reads the object as metadata and as a table.
func (w *wire) forms(s *sample) {
	w.t.Helper()
	named := s.at + "/" + s.obj.GetName()
	for path, kinds := range map[string][2]string{named: {"PartialObjectMetadata", "Table"}, s.at: {"PartialObjectMetadataList", "Table"}} {
		r := w.send(http.MethodGet, path, nil, "application/json;as="+kinds[0]+";v=v1;g=meta.k8s.io", nil)
		obj := r.object(w.t)
		if r.code != http.StatusOK || obj["kind"] != kinds[0] || obj["spec"] != nil || obj["data"] != nil {
			w.t.Errorf("metadata of %s: %d %.300s", path, r.code, r.body)
		}
		r = w.send(http.MethodGet, path, url.Values{"includeObject": {"Metadata"}}, "application/json;as=Table;v=v1;g=meta.k8s.io", nil)
		var table metav1.Table
		if err := json.Unmarshal(r.body, &table); err != nil || table.Kind != "Table" || len(table.Rows) == 0 {
			w.t.Errorf("table of %s: %d %v %.300s", path, r.code, err, r.body)
			continue
		}
		if len(table.Rows[0].Cells) != len(table.ColumnDefinitions) || !bytes.Contains(table.Rows[0].Object.Raw, []byte(`"PartialObjectMetadata"`)) {
			w.t.Errorf("table of %s: %d cells under %d columns, object %.100s", path, len(table.Rows[0].Cells), len(table.ColumnDefinitions), table.Rows[0].Object.Raw)
		}
	}
}

// preconditions must hold, and what is only tried must not happen.
func (w *wire) preconditions(s *sample) {
	w.t.Helper()
	named := s.at + "/" + s.obj.GetName()
	for field, options := range map[string]metav1.Preconditions{
		"uid":             {UID: new(types.UID("0"))},
		"resourceVersion": {ResourceVersion: new("1")},
	} {
		body, err := json.Marshal(metav1.DeleteOptions{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"}, Preconditions: &options})
		if err != nil {
			w.t.Fatal(err)
		}
		if r := w.send(http.MethodDelete, named, nil, "application/json", body); r.code != http.StatusConflict {
			w.t.Errorf("delete with another %s: %d %.300s", field, r.code, r.body)
		}
	}
	if slices.Contains(s.verbs, "update") {
		stale := s.with(func(o *unstructured.Unstructured) { o.SetResourceVersion("1") })
		if r := w.send(http.MethodPut, named, nil, "application/json", stale); r.code != http.StatusConflict {
			w.t.Errorf("update of an old version: %d %.300s", r.code, r.body)
		}
		if r := w.dryUpdate(named); r.code != http.StatusOK || !bytes.Contains(r.body, []byte("tried")) {
			w.t.Errorf("dry update: %d %.300s", r.code, r.body)
		}
	}
	if r := w.send(http.MethodDelete, named, url.Values{"dryRun": {onlyDry}}, "application/json", nil); r.code/100 != 2 {
		w.t.Errorf("dry delete: %d %.300s", r.code, r.body)
	}
	after := w.send(http.MethodGet, named, nil, "application/json", nil)
	if after.code != http.StatusOK || bytes.Contains(after.body, []byte("tried")) || bytes.Contains(after.body, []byte("deletionTimestamp")) {
		w.t.Errorf("after what was only tried: %d %.300s", after.code, after.body)
	}
}

// collection deletes by selector.
func (w *wire) collection(s *sample) {
	w.t.Helper()
	named := s.at + "/" + s.obj.GetName()
	gone := func() bool {
		r := w.send(http.MethodGet, named, nil, "application/json", nil)
		return r.code == http.StatusNotFound || bytes.Contains(r.body, []byte("deletionTimestamp"))
	}
	if !slices.Contains(s.verbs, "deletecollection") {
		if r := w.send(http.MethodDelete, named, nil, "application/json", nil); r.code/100 != 2 || !gone() {
			w.t.Errorf("delete: %d %.300s", r.code, r.body)
		}
		return
	}
	for _, row := range []struct {
		query url.Values
		gone  bool
	}{
		{url.Values{"labelSelector": {"machinery=elsewhere"}}, false},
		{url.Values{"fieldSelector": {"metadata.name=other"}}, false},
		{url.Values{"labelSelector": {"machinery=here"}, "dryRun": {onlyDry}}, false},
		{url.Values{"labelSelector": {"machinery=here"}, "fieldSelector": {"metadata.name=" + s.obj.GetName()}}, true},
	} {
		if r := w.send(http.MethodDelete, s.at, row.query, "application/json", nil); r.code != http.StatusOK {
			w.t.Errorf("delete collection %v: %d %.300s", row.query, r.code, r.body)
		}
		if got := gone(); got != row.gone {
			w.t.Errorf("delete collection %v: gone %t, want %t", row.query, got, row.gone)
		}
	}
}
