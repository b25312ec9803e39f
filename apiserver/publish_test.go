package apiserver_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	crdclient "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// reply is what a request was answered with, and by which address at last.
type reply struct {
	status int
	header http.Header
	uri    string
}

// ask gets a path as the administrator.
func (f *fixture) ask(t *testing.T, path, accept string, header ...string) (reply, []byte) {
	t.Helper()
	client, err := rest.HTTPClientFor(f.admin(t))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+f.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, resp.Request.URL.RequestURI()}, raw
}

// index is the list of documents: where each is, by its name.
func (f *fixture) index(t *testing.T) map[string]string {
	t.Helper()
	resp, raw := f.ask(t, "/openapi/v3", "application/json")
	if resp.status != http.StatusOK {
		t.Fatalf("index: %d %s", resp.status, raw)
	}
	var got struct {
		Paths map[string]struct {
			ServerRelativeURL string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for name, p := range got.Paths {
		out[name] = p.ServerRelativeURL
	}
	return out
}

func TestAPIIsDescribedOnlyWhileSomebodyAsks(t *testing.T) {
	f := start(t)
	if n := f.Publisher().Built(); n != 0 {
		t.Errorf("%d documents were built before anybody asked", n)
	}
	first := f.index(t)
	for _, name := range []string{"api/v1", "apis/apps/v1", "apis/apiextensions.k8s.io/v1", "apis/apiregistration.k8s.io/v1", "version"} {
		if first[name] == "" {
			t.Errorf("the index lacks %s", name)
		}
	}
	if f.Publisher().Built() == 0 {
		t.Error("nothing was kept")
	}
	f.Publisher().Close()
	if n := f.Publisher().Built(); n != 0 {
		t.Errorf("%d documents were kept", n)
	}
	again, other := f.index(t), start(t).index(t)
	for name, at := range first {
		if again[name] != at || other[name] != at {
			t.Errorf("%s: hashes differ: %s, again %s, on another peer %s", name, at, again[name], other[name])
		}
	}
}

func TestDocumentsComeAsClientsWantThem(t *testing.T) {
	f := start(t)
	at := f.index(t)["apis/apps/v1"]
	resp, raw := f.ask(t, at, "application/json")
	if resp.status != http.StatusOK || !strings.Contains(string(raw), `"io.k8s.api.apps.v1.Deployment"`) || strings.Contains(string(raw), "__internal") {
		t.Errorf("json: %d, %d bytes", resp.status, len(raw))
	}
	if !strings.Contains(resp.header.Get("Cache-Control"), "immutable") {
		t.Errorf("a document by its hash: Cache-Control %q", resp.header.Get("Cache-Control"))
	}
	if resp, _ = f.ask(t, at, "application/json", "If-None-Match", resp.header.Get("Etag")); resp.status != http.StatusNotModified {
		t.Errorf("unchanged: got %d, want 304", resp.status)
	}
	const proto3 = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"
	if resp, raw = f.ask(t, at, proto3); resp.status != http.StatusOK || !strings.Contains(resp.header.Get("Content-Type"), "protobuf") || len(raw) == 0 || raw[0] == '{' {
		t.Errorf("protobuf: %d %q", resp.status, resp.header.Get("Content-Type"))
	}
	if resp, _ = f.ask(t, "/openapi/v3/apis/apps/v1?hash=old", "application/json"); resp.uri != at {
		t.Errorf("an old hash leads to %s, want %s", resp.uri, at)
	}
	if resp, _ = f.ask(t, at, "text/html"); resp.status != http.StatusNotAcceptable {
		t.Errorf("html: got %d, want 406", resp.status)
	}
	if resp, _ = f.ask(t, "/openapi/v3/apis/nothing/v1", "application/json"); resp.status != http.StatusNotFound {
		t.Errorf("no such group: got %d, want 404", resp.status)
	}
	resp, raw = f.ask(t, "/openapi/v2", "application/json")
	var doc struct {
		Swagger     string
		Definitions map[string]any
	}
	if err := json.Unmarshal(raw, &doc); err != nil || doc.Swagger != "2.0" || doc.Definitions["io.k8s.api.core.v1.Pod"] == nil {
		t.Errorf("v2: %d, %v, %d definitions: %.200s", resp.status, err, len(doc.Definitions), raw)
	}
	if resp, raw = f.ask(t, "/openapi/v2", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"); resp.status != http.StatusOK || raw[0] == '{' {
		t.Errorf("v2 protobuf: %d", resp.status)
	}
}

func TestCustomResourcesAreDescribedWhileTheyExist(t *testing.T) {
	f := start(t)
	defs, err := crdclient.NewForConfig(f.admin(t))
	if err != nil {
		t.Fatal(err)
	}
	crds := defs.ApiextensionsV1().CustomResourceDefinitions()
	if _, err := crds.Create(t.Context(), crontabs(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	const name = "apis/stable.example.com/v2"
	deadline := time.Now().Add(3 * time.Minute) // the library deletes a definition when it gets to it
	wait := func(what string, done func() bool) {
		t.Helper()
		for !done() {
			if time.Now().After(deadline) {
				t.Fatalf("never happened: %s", what)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	wait("the definition is in the index", func() bool { return f.index(t)[name] != "" })
	before := f.index(t)[name]
	if _, raw := f.ask(t, before, "application/json"); !strings.Contains(string(raw), `"replicas"`) {
		t.Errorf("v3 lacks the schema: %.200s", raw)
	}
	if _, raw := f.ask(t, "/openapi/v2", "application/json"); !strings.Contains(string(raw), `com.example.stable.v2.CronTab"`) {
		t.Error("v2 lacks the definition")
	}
	crd, err := crds.Get(t.Context(), "crontabs.stable.example.com", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	schema := crd.Spec.Versions[1].Schema.OpenAPIV3Schema
	schema.Properties["extra"] = schema.Properties["spec"]
	if _, err := crds.Update(t.Context(), crd, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	wait("the hash follows the schema", func() bool { return f.index(t)[name] != before })
	if _, raw := f.ask(t, before, "application/json"); !strings.Contains(string(raw), `"extra"`) {
		t.Error("the document under its old hash is the old one")
	}
	if err := crds.Delete(t.Context(), crd.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wait("the definition leaves the index", func() bool { return f.index(t)[name] == "" })
	if _, raw := f.ask(t, "/openapi/v2", "application/json"); strings.Contains(string(raw), "com.example.stable") {
		t.Error("v2 still has the definition")
	}
}

// TestNobodyAsksAnIdleServerForItsDescription: the library's aggregator would
// ask each server behind it every second.
func TestNobodyAsksAnIdleServerForItsDescription(t *testing.T) {
	f := start(t)
	client := f.client(t, f.admin(t))
	asked := func() string {
		t.Helper()
		raw, err := client.RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(raw)) {
			if n, ok := strings.CutPrefix(line, `workqueue_adds_total{name="open_api_v3_aggregation_controller"}`); ok {
				return n
			}
		}
		t.Fatal("the library no longer counts what its aggregator does")
		return ""
	}
	before := ""
	for range 10 { // its first look at each is part of the start
		now := asked()
		if now == before {
			return
		}
		before = now
		time.Sleep(2500 * time.Millisecond)
	}
	t.Error("the aggregator goes on asking")
}
