package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// build makes the images into a new directory.
func build(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("busybox"); err != nil || checkStatic(path) != nil {
		t.Skip("no static busybox; install busybox-static")
	}
	dir := t.TempDir()
	if err := run(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestTheManifestsUseTheImagesMadeHere(t *testing.T) {
	dir := build(t)
	made := map[string]string{helloName: "hello.tar", busyboxName: "busybox.tar"}
	manifests, err := filepath.Glob("../hello/*.yaml")
	if err != nil || len(manifests) == 0 {
		t.Fatalf("no manifests: %v", err)
	}
	used := map[string]bool{}
	for _, m := range manifests {
		text, err := os.ReadFile(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range regexp.MustCompile(`image: (\S+)`).FindAllStringSubmatch(string(text), -1) {
			used[match[1]] = true
		}
	}
	for ref := range used {
		tag, err := name.NewTag(ref)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tarball.ImageFromPath(filepath.Join(dir, made[ref]), &tag); err != nil {
			t.Errorf("image %s: %v", ref, err)
		}
	}
	if len(used) != len(made) {
		t.Errorf("manifests use %v, made were %v", used, made)
	}
}

func TestBusyboxHasItsAppletsAndAsksNameServers(t *testing.T) {
	img, err := tarball.ImageFromPath(filepath.Join(build(t), "busybox.tar"), nil)
	if err != nil {
		t.Fatal(err)
	}
	fs := mutate.Extract(img)
	defer fs.Close()
	got := map[string]string{}
	for r := tar.NewReader(fs); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got[h.Name] = h.Linkname
	}
	for path, link := range map[string]string{"bin/busybox": "", "bin/wget": "busybox", "bin/sleep": "busybox", "etc/nsswitch.conf": "", "tmp": ""} {
		if have, ok := got[path]; !ok || have != link {
			t.Errorf("%s: got it %t, link %q, want link %q", path, ok, have, link)
		}
	}
}

func TestParentsAreMadeBeforeTheirFiles(t *testing.T) {
	b, err := archive([]file{{path: "a/b/c", mode: 0o600, data: []byte("x")}, {path: "a/l", link: "b/c"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		got = append(got, h.Name)
	}
	if d := cmp.Diff([]string{"a/", "a/b/", "a/b/c", "a/l"}, got); d != "" {
		t.Errorf("entries (-want +got):\n%s", d)
	}
}
