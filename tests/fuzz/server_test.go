package fuzz_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"skein.dev/skein/apiserver/kinds"
	"skein.dev/skein/tests/realapi"
)

// patience is how long one answer may take; longer is a hang.
const patience = 20 * time.Second

// target is a real server with the paths of all kinds.
type target struct {
	host   string
	client *http.Client
	paths  []string // of collections, in a fixed order: inputs name them by number
	kinds  map[string]string
}

func newTarget(f *testing.F) *target {
	f.Helper()
	s := realapi.Serve(f, realapi.Config{})
	cfg := s.User("kubernetes-admin", "system:masters")
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		f.Fatal(err)
	}
	t := &target{host: cfg.Host, client: client, kinds: map[string]string{}}
	for _, k := range kinds.All() {
		path := "/apis/" + k.Resource.Group + "/" + k.Resource.Version
		if k.Resource.Group == "" {
			path = "/api/v1"
		}
		t.kinds[k.Resource.GroupVersion().String()+" "+k.Kind] = k.Resource.Resource
		if k.Namespaced {
			path += "/namespaces/default"
		}
		t.paths = append(t.paths, path+"/"+k.Resource.Resource)
	}
	slices.Sort(t.paths)
	return t
}

// number is that of the path by which inputs name a kind.
func (t *target) number(plural string) (byte, bool) {
	i := slices.IndexFunc(t.paths, func(p string) bool { return strings.HasSuffix(p, "/"+plural) })
	return byte(i), i >= 0
}

// samples are JSON objects of the kinds, with the numbers of their paths.
func (t *target) samples(f *testing.F) map[byte][]byte {
	f.Helper()
	raw, err := os.ReadFile("../../apiserver/testdata/kinds.yaml")
	if err != nil {
		f.Fatal(err)
	}
	out := map[byte][]byte{}
	for text := range strings.SplitSeq(string(raw), "\n---\n") {
		js, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			f.Fatal(err)
		}
		var o unstructured.Unstructured
		if o.UnmarshalJSON(js) != nil {
			continue
		}
		if n, ok := t.number(t.kinds[o.GetAPIVersion()+" "+o.GetKind()]); ok {
			out[n] = js
		}
	}
	return out
}

func numbers(m map[byte][]byte) []byte { return slices.Sorted(maps.Keys(m)) }

// reply is an answer with its body.
type reply struct {
	code int
	body []byte
}

// upstreams reports whether k8s.io/apiserver itself takes a refusal of what was
// sent for a failure: its handlers have no status for these two.
func upstreams(body string) bool {
	return strings.Contains(body, "doesn't match $setElementOrder list") || strings.Contains(body, `"message":"invalid key: `)
}

// ask sends one request. What is no HTTP request at all, and an answer that
// does not come, are told apart: the first is nothing.
func (t *target) ask(tb testing.TB, method, path, contentType, accept string, body []byte) reply {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, t.host+path, bytes.NewReader(body))
	if err != nil {
		return reply{}
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("Accept", accept)
	resp, err := t.client.Do(r)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			tb.Fatalf("%s %s: no answer within %v", method, path, patience)
		}
		tb.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatalf("%s %s: %v", method, path, err)
	}
	if resp.StatusCode >= http.StatusInternalServerError && resp.StatusCode != http.StatusGatewayTimeout && !upstreams(string(got)) {
		tb.Fatalf("%s %s: %d %s", method, path, resp.StatusCode, got)
	}
	return reply{resp.StatusCode, got}
}
