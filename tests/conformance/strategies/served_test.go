package strategies

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"skein.dev/skein/tests/realapi"
)

// released opens a folder of what upstream's release says of its API. The
// files' names are the paths that serve them, with "__" for "/".
func released(t *testing.T, folder string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	if err != nil {
		t.Fatalf("find k8s.io/kubernetes: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "api", folder)
}

// generallyAvailable are the documents of a folder for v1, v2 and so on, by
// the paths that serve them.
func generallyAvailable(t *testing.T, folder, suffix string) map[string]any {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`__v[0-9]+$`)
	docs := map[string]any{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), suffix)
		if !version.MatchString(name) {
			continue
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		docs[strings.ReplaceAll(name, "__", "/")] = parse(t, raw)
	}
	if len(docs) < 20 {
		t.Fatalf("%d documents in %s, want one for each group", len(docs), folder)
	}
	return docs
}

func parse(t *testing.T, raw []byte) (tree any) {
	t.Helper()
	if err := json.Unmarshal(raw, &tree); err != nil {
		t.Fatal(err)
	}
	return tree
}

func ask(t *testing.T, s *realapi.Server, path string) any {
	t.Helper()
	raw, err := s.Admin.RESTClient().Get().AbsPath(path).SetHeader("Accept", "application/json").DoRaw(t.Context())
	if err != nil {
		t.Fatalf("get %s: %v", path, err)
	}
	return parse(t, raw)
}

// without returns the tree without the fields of some names.
func without(tree any, names ...string) any {
	switch v := tree.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, e := range v {
			if !slices.Contains(names, key) {
				out[key] = without(e, names...)
			}
		}
		return out
	case []any:
		out := make([]any, 0, len(v))
		for _, e := range v {
			out = append(out, without(e, names...))
		}
		return out
	}
	return tree
}

// keyed turns a list into a map by a field, so that its order does not count.
func keyed(t *testing.T, list any, field string) map[string]any {
	t.Helper()
	out := map[string]any{}
	items, _ := list.([]any)
	for _, e := range items {
		m, ok := e.(map[string]any)
		if !ok {
			t.Fatalf("%v is no object", e)
		}
		name, _ := m[field].(string)
		out[name] = e
	}
	return out
}

// TestDiscoveryIsUpstreams compares what every group says it serves: names,
// short names, categories, scopes, kinds, verbs and subresources.
func TestDiscoveryIsUpstreams(t *testing.T) {
	s := realapi.Serve(t, realapi.Config{})
	for path, want := range generallyAvailable(t, released(t, "discovery"), ".json") {
		t.Run(path, func(t *testing.T) {
			resources := func(doc any) any {
				m, _ := without(doc, "storageVersionHash").(map[string]any)
				return keyed(t, m["resources"], "name")
			}
			report(t, path, resources(want), resources(ask(t, s, "/"+path)))
		})
	}
}

// TestOpenAPIIsUpstreams compares how every group describes its paths and
// types. The words of descriptions do not count, nor does what the release's
// documents were not made with: they have CBOR, an alpha feature, and lack the
// values of enumerations, which a server of that release does publish.
func TestOpenAPIIsUpstreams(t *testing.T) {
	s := realapi.Serve(t, realapi.Config{})
	skip := []string{"description", "info", "enum", "application/cbor", "application/cbor-seq", "application/apply-patch+cbor"}
	for path, want := range generallyAvailable(t, released(t, "openapi-spec/v3"), "_openapi.json") {
		t.Run(path, func(t *testing.T) {
			report(t, path, without(want, skip...), without(ask(t, s, "/openapi/v3/"+path), skip...))
		})
	}
}

// report fails with the lines that only one side has.
func report(t *testing.T, path string, want, got any) {
	t.Helper()
	known := map[string]int{}
	diff := unargued(path, strings.Join(lines("", leaves(want), leaves(got)), "\n"), known)
	for why, n := range known {
		t.Logf("%d known: %s", n, why)
	}
	if diff == "" {
		return
	}
	all := strings.Split(diff, "\n")
	t.Errorf("%d lines differ:\n%s", len(all), strings.Join(all[:min(len(all), 10**shown)], "\n"))
}
