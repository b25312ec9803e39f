package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// content is what an image is made of.
type content struct {
	files []file
	run   []string // the entry point
	user  string   // empty: root
}

// file is a regular file, a symbolic link, or with a path that ends in "/" a
// directory. Parents are made by themselves.
type file struct {
	path string
	mode int64
	data []byte
	link string
}

func (f file) header() *tar.Header {
	h := &tar.Header{Name: f.path, Mode: f.mode, ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Size: int64(len(f.data))}
	switch {
	case f.link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.link, 0o777
	case strings.HasSuffix(f.path, "/"):
		h.Typeflag = tar.TypeDir
	}
	return h
}

// write makes the image and writes it to the file out, named ref in it.
func write(out, ref string, c content) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("name image: %w", err)
	}
	img, err := image(c)
	if err != nil {
		return fmt.Errorf("make image %s: %w", ref, err)
	}
	if err := tarball.WriteToFile(out, tag, img); err != nil {
		return fmt.Errorf("write image %s: %w", ref, err)
	}
	return nil
}

func image(c content) (v1.Image, error) {
	files, err := archive(c.files)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil })
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", runtime.GOARCH
	cf.Config.Entrypoint, cf.Config.User = c.run, c.user
	cf.Config.Env = []string{"PATH=/bin"}
	return mutate.ConfigFile(img, cf)
}

// archive is a tar of files sorted by path, parents first.
func archive(files []file) ([]byte, error) {
	all := map[string]file{}
	for _, f := range files {
		for dir := path.Dir(strings.TrimSuffix(f.path, "/")); dir != "."; dir = path.Dir(dir) {
			if _, ok := all[dir+"/"]; !ok {
				all[dir+"/"] = file{path: dir + "/", mode: 0o755}
			}
		}
		all[f.path] = f
	}
	var paths []string
	for p := range all {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, p := range paths {
		if err := w.WriteHeader(all[p].header()); err != nil {
			return nil, err
		}
		if _, err := w.Write(all[p].data); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}
