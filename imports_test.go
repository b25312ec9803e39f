package skein_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "skein.dev/skein/"

// allowed is the architecture: a top-level folder may import only those named
// with it. Services are siblings and meet in api; daemon and cli wire them.
var allowed = map[string][]string{
	"api":         {},
	"identity":    {"api"},
	"link":        {"api"}, // the one port and its ALPN protocols: an adapter, under daemon, guard and cli
	"network":     {"api"}, // the kernel adapter
	"guard":       {"api", "link"},
	"raftstore":   {"api"},
	"gossip":      {"api"},
	"apiserver":   {"api"},
	"sched":       {"api"},
	"controllers": {"api"},
	"engine":      {"api"},
	"kubelet":     {"api", "network"},
	"proxy":       {"api", "network"},
	"dnsaddon":    {"api"},
	"daemon": {
		"api", "identity", "link", "network", "guard", "raftstore", "gossip", "apiserver",
		"sched", "controllers", "engine", "kubelet", "proxy", "dnsaddon",
	},
	"lab":      {"api"},
	"cli":      {"api", "identity", "link", "lab", "guard", "engine", "daemon"}, // daemon: only its Config, which the flags fill
	"cmd":      {"cli", "daemon", "engine", "guard", "network"},
	"tests":    {"api", "lab", "raftstore", "gossip", "apiserver"}, // apiserver: realapi serves it to the tests of its clients
	"examples": {},
}

// pure packages decide; what reads or changes the world is their caller's.
var pure = map[string]bool{
	"sched/decide": true, "raftstore/fsm": true, "proxy/render": true, "kubelet/lifecycle": true, "kubelet/pressure": true, "gossip/view": true,
}

var impure = []string{"net", "os", "os/exec", "log/slog"}

func TestPackagesImportOnlyWhatTheTableAllows(t *testing.T) {
	for _, p := range listPackages(t) {
		rel := strings.TrimPrefix(p.ImportPath, module)
		from := top(p.ImportPath)
		if from == "" {
			continue
		}
		if _, ok := allowed[from]; !ok {
			t.Errorf("%s: top-level folder %q is not in the table", p.ImportPath, from)
		}
		for _, imp := range p.Imports {
			if to := top(imp); to != "" && to != from && !slices.Contains(allowed[from], to) {
				t.Errorf("%s must not import %s", p.ImportPath, imp)
			}
			if pure[rel] && slices.Contains(impure, imp) {
				t.Errorf("%s is pure and must not import %s", p.ImportPath, imp)
			}
			if strings.HasPrefix(imp, "k8s.io/kubernetes/") {
				t.Errorf("%s must not import the monolith %s", p.ImportPath, imp)
			}
		}
	}
}

type listed struct {
	ImportPath string
	Imports    []string
}

func listPackages(t *testing.T) []listed {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("decode go list: %v", err)
		}
		all = append(all, p)
	}
}

func top(path string) string {
	rest, ok := strings.CutPrefix(path, module)
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}
