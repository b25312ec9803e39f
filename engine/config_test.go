package engine_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/pelletier/go-toml/v2"

	"skein.dev/skein/engine"
	"skein.dev/skein/engine/programs"
)

// archive is an image of random files as `docker save` would write it.
func archive(t *testing.T, ref string) []byte {
	t.Helper()
	img, err := random.Image(1<<10, 2)
	must(t, err)
	cf, err := img.ConfigFile()
	must(t, err)
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", runtime.GOARCH
	img, err = mutate.ConfigFile(img, cf)
	must(t, err)
	tag, err := name.NewTag(ref)
	must(t, err)
	var b bytes.Buffer
	must(t, tarball.Write(tag, img, &b))
	return b.Bytes()
}

func TestTheConfigurationOfTwoPeersSharesNoPath(t *testing.T) {
	if _, err := programs.Read(programs.Runc); errors.Is(err, programs.ErrNotBuilt) {
		t.Skip("no static programs; run: make programs")
	}
	base := t.TempDir()
	var paths [2]map[string]bool
	for i, peer := range []string{`a"b\`, "b"} {
		data := filepath.Join(base, peer)
		state, err := os.MkdirTemp("/tmp", "sk") //nolint:usetesting // t.TempDir is too long a path for a socket
		must(t, err)
		t.Cleanup(func() { must(t, os.RemoveAll(state)) })
		e, err := engine.New(engine.Config{DataDir: data, StateDir: state, CNIBinDirs: []string{}})
		must(t, err)
		must(t, e.Prepare(t.Context()))
		text, err := os.ReadFile(filepath.Join(state, "containerd.toml"))
		must(t, err)
		var tree map[string]any
		if err := toml.Unmarshal(text, &tree); err != nil {
			t.Fatalf("configuration is no TOML: %v\n%s", err, text)
		}
		paths[i] = map[string]bool{}
		collect(tree, paths[i])
		for p := range paths[i] {
			if !strings.HasPrefix(p, data) && !strings.HasPrefix(p, state) {
				t.Errorf("%s lies outside of the peer's folders", p)
			}
		}
	}
	if len(paths[0]) < 10 {
		t.Errorf("found only the paths %v", paths[0])
	}
	for p := range paths[0] {
		if paths[1][p] {
			t.Errorf("both peers use %s", p)
		}
	}
}

// collect gathers every absolute path in a decoded TOML tree.
func collect(v any, into map[string]bool) {
	switch v := v.(type) {
	case string:
		if filepath.IsAbs(v) {
			into[v] = true
		}
	case map[string]any:
		for _, c := range v {
			collect(c, into)
		}
	case []any:
		for _, c := range v {
			collect(c, into)
		}
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	for name, row := range map[string]struct {
		cfg  engine.Config
		want string
	}{
		"relative data directory":       {engine.Config{DataDir: "data", StateDir: "/run/x"}, "absolute"},
		"state directory for sockets":   {engine.Config{DataDir: "/d", StateDir: "/" + strings.Repeat("x", 40)}, "room for 40"},
		"endpoint that is no unix path": {engine.Config{Endpoint: "tcp://1.2.3.4:5"}, "unix://"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := engine.New(row.cfg)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got error %v, want one with %q", err, row.want)
			}
		})
	}
}

func TestAnExternalRuntimeNeedsNoProcess(t *testing.T) {
	e, err := engine.New(engine.Config{Endpoint: "/run/crio/crio.sock"})
	must(t, err)
	if e.Embedded() || e.Process().Path != "" {
		t.Errorf("got a process %+v to start beside the external runtime", e.Process())
	}
	if got, want := e.Endpoint(), "unix:///run/crio/crio.sock"; got != want {
		t.Errorf("endpoint: got %s, want %s", got, want)
	}
}

func TestReadyTellsWhyWhenNothingListens(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "none.sock")
	e, err := engine.New(engine.Config{Endpoint: sock})
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err = e.Ready(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), sock) {
		t.Errorf("got %v, want the deadline and the socket's path", err)
	}
}
