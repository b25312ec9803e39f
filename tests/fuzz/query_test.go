package fuzz_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The bits of FuzzLists' mode.
const (
	watching = 1 << iota
	initialEvents
	bookmarks
	deleting // the collection, as a trial
	asTable
	asMetadata
	inProtobuf
)

// FuzzLists lists, watches and (as a trial) deletes collections with any
// token, selectors, version and limit.
func FuzzLists(f *testing.F) {
	t := newTarget(f)
	token := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	for _, ns := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem} { // what pages are made of, and what none may show
		for _, name := range []string{"a", "b", "c"} {
			body := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"` + name + `","labels":{"a":"b"}}}`
			if got := t.json(f, http.MethodPost, "/api/v1/namespaces/"+ns+"/configmaps", []byte(body)); got.code != http.StatusCreated {
				f.Fatalf("create: %d %s", got.code, got.body)
			}
		}
	}
	for n := range t.places {
		f.Add(byte(n), byte(0), "", "a=b", "metadata.name=a", "0", "NotOlderThan", int64(1))
		f.Add(byte(n), byte(watching|bookmarks), "", "", "spec.nodeName=,status.phase!=Running", "1", "", int64(0))
		f.Add(byte(n), byte(asTable), token(`{"v":"meta.k8s.io/v1","rv":-1,"start":"b\u0000"}`), "", "", "", "", int64(2))
	}
	f.Add(byte(0), byte(0), token(`{"v":"meta.k8s.io/v1","rv":5,"start":"a\u0000"}`), "a=b", "metadata.name=x", "0", "", int64(1))
	f.Add(byte(1), byte(0), token(`{"v":"meta.k8s.io/v1","rv":-1,"start":"../../kube-system/a"}`), "a in (b,c),!d", "spec.nodeName!=", "", "Exact", int64(0))
	f.Add(byte(2), byte(watching|initialEvents|bookmarks), "", "a notin ()", "status.phase==Running,", "99999999999", "NotOlderThan", int64(-1))
	f.Add(byte(3), byte(deleting), "", "!a", "metadata.namespace=x", "18446744073709551615", "Exact", int64(1<<40))
	f.Fuzz(func(tt *testing.T, n, mode byte, cont, labels, fields, version, match string, limit int64) {
		q := url.Values{"timeoutSeconds": {"1"}}
		for k, v := range map[string]string{
			"continue": cont, "labelSelector": labels, "fieldSelector": fields, "resourceVersion": version, "resourceVersionMatch": match,
		} {
			if v != "" {
				q.Set(k, v)
			}
		}
		if limit != 0 {
			q.Set("limit", strconv.FormatInt(limit, 10))
		}
		m := message{method: http.MethodGet, contentType: asJSON, accept: asJSON}
		if mode&asTable != 0 {
			m.accept = asJSON + ";as=Table;v=v1;g=meta.k8s.io"
		}
		if mode&asMetadata != 0 {
			m.accept = asJSON + ";as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
		}
		if mode&inProtobuf != 0 {
			m.accept = strings.Replace(m.accept, asJSON, asProtobuf, 1)
		}
		switch {
		case mode&deleting != 0:
			m.method = http.MethodDelete
			q.Set("dryRun", metav1.DryRunAll)
		case mode&watching != 0:
			m.glimpse = true
			q.Set("watch", "1")
			if mode&bookmarks != 0 {
				q.Set("allowWatchBookmarks", "1")
			}
			if mode&initialEvents != 0 {
				q.Set("sendInitialEvents", "1")
			}
		}
		m.path = t.place(n).path + "?" + q.Encode()
		got := t.ask(tt, m)
		if got.code != http.StatusOK || m.accept != asJSON || m.method != http.MethodGet {
			return
		}
		if m.glimpse {
			events(tt, got.body)
			return
		}
		if items := inDefault(tt, got.body); limit > 0 && int64(len(items)) > limit {
			tt.Fatalf("%d items for a limit of %d", len(items), limit)
		}
	})
}

// events reads what came of a watch of the namespace default.
func events(tb testing.TB, body []byte) {
	tb.Helper()
	d := json.NewDecoder(strings.NewReader(string(body)))
	for {
		var e struct {
			Type   string
			Object metav1.PartialObjectMetadata
		}
		if d.Decode(&e) != nil {
			return // cut off in the middle
		}
		if ns := e.Object.Namespace; e.Type == "" || ns != "" && ns != metav1.NamespaceDefault {
			tb.Fatalf("a watch of the namespace default says %q of %s/%s", e.Type, ns, e.Object.Name)
		}
	}
}

// FuzzNames asks for objects by any names: no name leads out of its namespace.
func FuzzNames(f *testing.F) {
	t := newTarget(f)
	secret := []byte(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"hidden"},"stringData":{"a":"b"}}`)
	if got := t.json(f, http.MethodPost, "/api/v1/namespaces/kube-system/secrets", secret); got.code != http.StatusCreated {
		f.Fatalf("create: %d %s", got.code, got.body)
	}
	for _, s := range []string{"../../kube-system/secrets/hidden", "..", ".", "a\x00b", "%2e%2e/x", "/", "kube-system/hidden"} {
		f.Add(byte(0), "default", s)
		f.Add(byte(30), s, "hidden")
	}
	f.Fuzz(func(tt *testing.T, n byte, namespace, name string) {
		if namespace == metav1.NamespaceSystem || !utf8.ValidString(name) {
			return // in JSON a name that is no text is another name
		}
		got := t.json(tt, http.MethodGet, "/api/v1/namespaces/"+url.PathEscape(namespace)+"/secrets/"+url.PathEscape(name), nil)
		var o metav1.PartialObjectMetadata
		if got.code == http.StatusOK && json.Unmarshal(got.body, &o) == nil && o.Kind == "Secret" && o.Name == "hidden" {
			tt.Fatalf("namespace %q, name %q: got %s/%s", namespace, name, o.Namespace, o.Name)
		}
		p := t.place(n)
		if p.sample == nil {
			return
		}
		var body map[string]any
		if err := json.Unmarshal(p.sample, &body); err != nil {
			tt.Fatal(err)
		}
		body["metadata"] = map[string]any{"name": name, "namespace": namespace}
		js, err := json.Marshal(body)
		if err != nil {
			tt.Fatal(err)
		}
		made := t.json(tt, http.MethodPost, p.path, js)
		if made.code != http.StatusCreated {
			return
		}
		defer t.remove(tt, p, url.PathEscape(name))
		var is metav1.PartialObjectMetadata
		if err := json.Unmarshal(made.body, &is); err != nil || is.Namespace != "" && is.Namespace != metav1.NamespaceDefault {
			tt.Fatalf("created an object of namespace %q at %s: %v %s", namespace, p.path, err, made.body)
		}
		read := t.json(tt, http.MethodGet, p.at(url.PathEscape(name), ""), nil)
		if read.code != http.StatusOK || json.Unmarshal(read.body, &o) != nil || o.Name != name {
			tt.Fatalf("created as %q, but %s is %d %s", name, p.at(url.PathEscape(name), ""), read.code, read.body)
		}
	})
}

// FuzzRequests sends any request to any path.
func FuzzRequests(f *testing.F) {
	t := newTarget(f)
	pod := "/api/v1/namespaces/default/pods"
	if got := t.json(f, http.MethodPost, pod, []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"nodeName":"n","containers":[{"name":"c","image":"i"}]}}`)); got.code != http.StatusCreated {
		f.Fatalf("create: %d %s", got.code, got.body)
	}
	for _, path := range []string{
		"/", "/healthz?verbose&exclude=ping", "/livez/ping", "/readyz", "/version", "/metrics", "/openapi/v2", "/openapi/v3/api/v1?hash=x",
		"/.well-known/openid-configuration", "/openid/v1/jwks", "/debug/pprof/", "/api", "/apis", "/api/v1/watch/pods", "/mesh/v1/join", "/logs/",
		pod + "/p/log?follow=1&tailLines=-1&sinceTime=x", pod + "/p/exec?command=a&container=c&stdin=1", pod + "/p/attach?tty=1",
		pod + "/p/portforward?ports=80", pod + "/p/proxy/../..//x?a=b", "/api/v1/nodes/n:10250/proxy/configz",
		"/api/v1/namespaces/default/services/https:kubernetes:443/proxy/", pod + "/p?fieldValidation=Strict&dryRun=All&propagationPolicy=X&pretty=1",
	} {
		f.Add(http.MethodGet, path, asJSON, asJSON+";as=Table;v=v1;g=meta.k8s.io, */*;q=0.1", []byte{})
		f.Add(http.MethodPost, path, asJSON, "", []byte(`{"apiVersion":"v1","kind":"DeleteOptions","preconditions":{"uid":""}}`))
	}
	f.Fuzz(func(tt *testing.T, method, path, contentType, accept string, body []byte) {
		if !strings.HasPrefix(path, "/") || method == http.MethodDelete && !strings.Contains(path, "dryRun=All") || strings.Contains(path, "/debug/pprof/") {
			return // not a path; what would take away the ground; what takes half a minute by design
		}
		t.ask(tt, message{method: method, path: path, contentType: contentType, accept: accept, body: body, glimpse: true})
	})
}
