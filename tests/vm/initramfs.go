//go:build linux

package vm

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// Tree is a root file system in the making: a cpio archive that the kernel
// unpacks into memory.
type Tree struct {
	w    *bufio.Writer
	ino  int
	dirs map[string]bool
	err  error
}

// NewTree starts an archive on w; call Close when all is added.
func NewTree(w io.Writer) *Tree {
	return &Tree{w: bufio.NewWriterSize(w, 1<<20), dirs: map[string]bool{}}
}

// Dir adds a directory and its parents.
func (t *Tree) Dir(name string) {
	name = strings.Trim(name, "/")
	if name == "" || name == "." || t.dirs[name] {
		return
	}
	t.Dir(path.Dir(name))
	t.dirs[name] = true
	t.header(name, 0o040755, 0)
}

// Bytes adds a regular file.
func (t *Tree) Bytes(name string, mode fs.FileMode, data []byte) {
	t.Dir(path.Dir(strings.Trim(name, "/")))
	t.header(strings.Trim(name, "/"), 0o100000|uint32(mode.Perm()), int64(len(data)))
	t.write(data)
	t.pad(int64(len(data)))
}

// Link adds a symbolic link.
func (t *Tree) Link(name, target string) {
	t.Dir(path.Dir(strings.Trim(name, "/")))
	t.header(strings.Trim(name, "/"), 0o120777, int64(len(target)))
	t.write([]byte(target))
	t.pad(int64(len(target)))
}

// File adds a copy of the machine's file at from.
func (t *Tree) File(name, from string) {
	f, err := os.Open(from)
	if err != nil {
		t.fail(err)
		return
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.fail(err)
		return
	}
	t.Dir(path.Dir(strings.Trim(name, "/")))
	t.header(strings.Trim(name, "/"), 0o100000|uint32(fi.Mode().Perm()), fi.Size())
	if _, err := io.CopyN(t.w, f, fi.Size()); err != nil {
		t.fail(err)
	}
	t.pad(fi.Size())
}

// Close ends the archive and returns the first error of any call.
func (t *Tree) Close() error {
	t.header("TRAILER!!!", 0, 0)
	t.fail(t.w.Flush())
	if t.err != nil {
		return fmt.Errorf("write root file system: %w", t.err)
	}
	return nil
}

// header writes an entry of the "newc" format, which the kernel documents in
// Documentation/driver-api/early-userspace/buffer-format.rst.
func (t *Tree) header(name string, mode uint32, size int64) {
	t.ino++
	fields := []int64{int64(t.ino), int64(mode), 0, 0, 1, 0, size, 0, 0, 0, 0, int64(len(name) + 1), 0}
	t.write([]byte("070701"))
	for _, f := range fields {
		t.write(fmt.Appendf(nil, "%08x", f))
	}
	t.write(append([]byte(name), 0))
	t.pad(int64(110 + len(name) + 1)) // 110 bytes of header come before the name
}

// pad fills up to a multiple of 4 what had n bytes.
func (t *Tree) pad(n int64) { t.write(make([]byte, (4-n%4)%4)) }

func (t *Tree) write(b []byte) {
	_, err := t.w.Write(b)
	t.fail(err)
}

func (t *Tree) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}
