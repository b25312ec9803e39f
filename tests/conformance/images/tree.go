package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// tree is the file system of an image: what is at each path, which has no
// slash at its ends. A later entry takes the place of an earlier one.
type tree map[string]entry

// entry is a directory, a symbolic link or a regular file.
type entry struct {
	mode fs.FileMode // permissions, setuid and the kind
	link string
	data []byte
}

func (t tree) dir(p string, perm fs.FileMode) { t[p] = entry{mode: perm | fs.ModeDir} }
func (t tree) link(p, to string)              { t[p] = entry{mode: 0o777 | fs.ModeSymlink, link: to} }
func (t tree) text(p, text string)            { t[p] = entry{mode: 0o644, data: []byte(text)} }

// file copies a file of this machine.
func (t tree) file(p, from string, perm fs.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("add %s: %w", p, err)
	}
	t[p] = entry{mode: perm, data: data}
	return nil
}

// add puts a directory of this machine over the tree, as it is but for the
// paths that keep refuses.
func (t tree) add(dir string, keep func(string) bool) error {
	err := filepath.WalkDir(dir, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		p, err := filepath.Rel(dir, full)
		if err != nil || p == "." || !keep(p) {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e := entry{mode: info.Mode()}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			e.link, err = os.Readlink(full)
		case info.Mode().IsRegular():
			e.data, err = os.ReadFile(full)
		case !d.IsDir():
			return fmt.Errorf("%s: cannot be in an image here: %s", full, info.Mode())
		}
		t[p] = e
		return err
	})
	if err != nil {
		return fmt.Errorf("add %s: %w", dir, err)
	}
	return nil
}

// over makes a tree of the given ones, the later over the earlier.
func over(all ...tree) tree {
	out := tree{}
	for _, t := range all {
		for p, e := range t {
			out[p] = e
		}
	}
	return out
}

// archive is the tree as a tar sorted by path, parents first, all of root and
// of one time: equal trees make equal bytes.
func (t tree) archive() ([]byte, error) {
	all := over(t)
	for p := range t {
		for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
			if _, ok := all[dir]; !ok {
				all.dir(dir, 0o755)
			}
		}
	}
	paths := make([]string, 0, len(all))
	for p := range all {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, p := range paths {
		e := all[p]
		if err := w.WriteHeader(e.header(p)); err != nil {
			return nil, fmt.Errorf("archive %s: %w", p, err)
		}
		if _, err := io.Copy(w, bytes.NewReader(e.data)); err != nil {
			return nil, fmt.Errorf("archive %s: %w", p, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	return b.Bytes(), nil
}

func (e entry) header(p string) *tar.Header {
	h := &tar.Header{
		Name: p, Mode: int64(e.mode.Perm()), Size: int64(len(e.data)),
		ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg,
	}
	for bit, mode := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if e.mode&bit != 0 {
			h.Mode |= mode
		}
	}
	switch {
	case e.mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, strings.TrimSuffix(p, "/")+"/"
	case e.mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
	}
	return h
}
