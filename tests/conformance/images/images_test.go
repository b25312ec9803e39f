package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func entries(t *testing.T, tr tree) map[string]*tar.Header {
	t.Helper()
	b, err := tr.archive()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*tar.Header{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		for dir := filepath.Dir(strings.TrimSuffix(h.Name, "/")); dir != "."; dir = filepath.Dir(dir) {
			if out[dir+"/"] == nil {
				t.Errorf("%s comes before its parent %s", h.Name, dir)
			}
		}
		out[h.Name] = h
	}
}

func TestLayersKeepModesAndLinks(t *testing.T) {
	tr := tree{}
	tr["usr/bin/nnp"] = entry{mode: 0o755 | fs.ModeSetuid, data: []byte("x")}
	tr.dir("tmp", 0o777|fs.ModeSticky)
	tr.link("bin/sh", "dash")
	got := entries(t, tr)
	if h := got["usr/bin/nnp"]; h == nil || h.Mode != 0o4755 || h.Size != 1 {
		t.Errorf("setuid program: %+v", h)
	}
	if h := got["tmp/"]; h == nil || h.Mode != 0o1777 || h.Typeflag != tar.TypeDir {
		t.Errorf("sticky directory: %+v", h)
	}
	if h := got["bin/sh"]; h == nil || h.Linkname != "dash" || h.Typeflag != tar.TypeSymlink {
		t.Errorf("link: %+v", h)
	}
}

func TestAddKeepsWhatIsWantedOfADirectory(t *testing.T) {
	dir := t.TempDir()
	for _, p := range []string{"usr/bin", "usr/share/doc/x"} {
		if err := os.MkdirAll(filepath.Join(dir, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "usr/bin/x"), nil, 0o700); err != nil {
		t.Fatal(err)
	}
	tr := tree{}
	if err := tr.add(dir, needed); err != nil {
		t.Fatal(err)
	}
	if e, ok := tr["usr/bin/x"]; !ok || e.mode.Perm() != 0o700 {
		t.Errorf("usr/bin/x: %+v", e)
	}
	if _, ok := tr["usr/share/doc/x"]; ok {
		t.Error("documentation was added")
	}
}

func TestAProgramWithoutItsLibraryIsFound(t *testing.T) {
	var program string
	for _, p := range []string{"/bin/bash", "/usr/bin/env", "/bin/ls"} {
		if _, err := os.Stat(p); err == nil {
			program = p
		}
	}
	tr := tree{}
	if err := tr.file("bin/program", program, 0o755); err != nil {
		t.Skipf("no program that is linked dynamically: %v", err)
	}
	if err := tr.checkLibraries(); err == nil || !strings.Contains(err.Error(), "libc.so.6") {
		t.Errorf("got %v, want that libc.so.6 is missing", err)
	}
}

func TestImagesThatDifferInNameOnlyAreDifferent(t *testing.T) {
	tr := tree{}
	tr.text("etc/x", "x")
	l, err := layer(tr)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "images.tar")
	i := image{layers: []v1.Layer{l}, cmd: []string{"x"}}
	if err := write(out, map[string]image{"r.example/x:1": i, "r.example/x:2": i}); err != nil {
		t.Fatal(err)
	}
	m, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(out) })
	if err != nil {
		t.Fatal(err)
	}
	if len(m) != 2 || m[0].Config == m[1].Config || m[0].Layers[0] != m[1].Layers[0] {
		t.Errorf("got %+v, want two images of one layer", m)
	}
}
