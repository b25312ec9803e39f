package fuzz_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2" //nolint:depguard // what the libraries of the server speak by

	"skein.dev/skein/tests/realapi"
)

const (
	// patience is how long one answer may take; longer is a hang.
	patience = 20 * time.Second
	// glimpse is how long an answer that goes on (a watch) is read.
	glimpse = 30 * time.Millisecond
)

// target is a real server with the places of all that it serves.
type target struct {
	host   string
	client *http.Client
	places []place // in a fixed order: inputs name them by number
	codecs serializer.CodecFactory
}

func newTarget(f *testing.F) *target {
	f.Helper()
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard) // what the server says of each input
	s := realapi.Serve(f, realapi.Config{})
	cfg := s.User("kubernetes-admin", "system:masters")
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		f.Fatal(err)
	}
	t := &target{host: cfg.Host, client: client, codecs: types(f)}
	// What the mesh's controllers would have made.
	account := []byte(`{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}}`)
	if got := t.json(f, http.MethodPost, "/api/v1/namespaces/default/serviceaccounts", account); got.code != http.StatusCreated {
		f.Fatalf("create: %d %s", got.code, got.body)
	}
	t.define(f)
	t.survey(f, string(s.RootPEM()))
	return t
}

// place returns the one that an input names.
func (t *target) place(n byte) *place { return &t.places[int(n)%len(t.places)] }

// message is one request.
type message struct {
	method, path, contentType, accept string
	body                              []byte
	glimpse                           bool // read only what comes at once
}

// reply is an answer with its body.
type reply struct {
	code int
	body []byte
}

// json asks in JSON.
func (t *target) json(tb testing.TB, method, path string, body []byte) reply {
	tb.Helper()
	return t.ask(tb, message{method: method, path: path, contentType: asJSON, accept: asJSON, body: body})
}

// ask sends one request. What is no HTTP request at all is nothing; an answer
// that does not come, or is a failure of the server, ends the test.
func (t *target) ask(tb testing.TB, m message) reply {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, m.method, t.host+m.path, bytes.NewReader(m.body))
	if err != nil {
		return reply{}
	}
	r.Header.Set("Content-Type", m.contentType)
	r.Header.Set("Accept", m.accept)
	resp, err := t.client.Do(r)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			tb.Fatalf("%s %s: no answer within %v", m.method, m.path, patience)
		}
		if strings.Contains(err.Error(), "net/http: invalid") {
			return reply{}
		}
		tb.Fatalf("%s %s: %v", m.method, m.path, err)
	}
	defer resp.Body.Close()
	if m.glimpse {
		stop := time.AfterFunc(glimpse, cancel)
		defer stop.Stop()
	}
	got, err := io.ReadAll(resp.Body)
	if err != nil && !m.glimpse {
		tb.Fatalf("%s %s: %v", m.method, m.path, err)
	}
	if resp.StatusCode >= http.StatusInternalServerError && !excused(m.path, resp.StatusCode, string(got)) {
		tb.Fatalf("%s %s: %d %s", m.method, m.path, resp.StatusCode, got)
	}
	return reply{resp.StatusCode, got}
}

// excused reports whether an answer above 500 is no failure: nobody is there
// to be connected to, or the library knows no better.
func excused(path string, code int, body string) bool {
	if strings.Contains(body, "apiserver to panic") {
		return false
	}
	if code == http.StatusGatewayTimeout || slices.ContainsFunc(librarys(), func(s string) bool { return strings.Contains(body, s) }) {
		return true
	}
	path, _, _ = strings.Cut(path, "?")
	parts := strings.Split(path, "/")
	return slices.ContainsFunc(connected(), func(s string) bool { return slices.Contains(parts, s) })
}

// librarys are refusals for which k8s.io/apiserver has no status: they are 500
// of upstream's, too. The first is the input's own webhook.
func librarys() []string {
	return []string{
		"failed calling webhook", "doesn't match $setElementOrder list", `"message":"invalid key: `,
		"unknown patch type: ", `"message":"expected `, "declared merge key", "cannot find merge key", "without merge key",
		"in merging list", "list element types are not identical", "invalid value for special key", "merging lists cannot yet be",
		"unable to find api field", "are not deep equal", " is not a map",
		"failed to create typed patch object", "failed to convert new typed object", "failed to convert new object", noYAML,
	}
}

// noYAML is said of an object with text that JSON can carry and YAML cannot.
const noYAML = "yaml: control characters are not allowed"

// connected are the subresources behind which somebody else answers.
func connected() []string {
	return []string{"proxy", "exec", "attach", "portforward", "log"}
}
