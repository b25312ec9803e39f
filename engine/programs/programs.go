// Package programs carries the small static programs that run beside skein:
// guard, cni, containerd-shim-runc-v2, runc and pause.
//
// Its invariant: a program on disk is whole and executable at every moment,
// also while it is replaced, because processes of an older peer may run it.
package programs

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

//go:embed all:bin
var bin embed.FS

// Names of the programs; each is also the name of its file.
const (
	Guard = "guard"
	CNI   = "cni"
	Shim  = "containerd-shim-runc-v2"
	Runc  = "runc"
	Pause = "pause"
)

// All returns the names of the programs that a whole build carries.
func All() []string { return []string{Guard, CNI, Shim, Runc, Pause} }

// ErrNotBuilt says that this binary was linked before `make programs`.
var ErrNotBuilt = errors.New("this skein was built without it (run: make programs, then build again)")

// Read returns the content of one program.
func Read(name string) ([]byte, error) {
	b, err := bin.ReadFile("bin/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("program %s: %w", name, ErrNotBuilt)
	}
	return b, err
}

// Unpack writes every program into dir, which it makes when it is missing. A
// file that already has the right content is left alone; another is replaced
// by rename, so what still runs the old one keeps it. It is safe to run twice
// and beside another Unpack of the same binary.
func Unpack(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make programs directory: %w", err)
	}
	for _, name := range All() {
		if err := unpackOne(dir, name); err != nil {
			return fmt.Errorf("unpack program %s: %w", name, err)
		}
	}
	return nil
}

func unpackOne(dir, name string) error {
	src, err := bin.Open("bin/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotBuilt
	} else if err != nil {
		return err
	}
	defer src.Close()
	path := filepath.Join(dir, name)
	same, err := sameContent(path, src)
	if err != nil || same {
		return err
	}
	if _, err := src.(io.Seeker).Seek(0, io.SeekStart); err != nil {
		return err
	}
	return replace(path, src)
}

// sameContent compares the file at path with src. A missing or unreadable
// file is simply different.
func sameContent(path string, src fs.File) (bool, error) {
	want, err := src.Stat()
	if err != nil {
		return false, err
	}
	f, err := os.Open(path)
	if err != nil {
		return false, nil
	}
	defer f.Close()
	if have, err := f.Stat(); err != nil || have.Size() != want.Size() || have.Mode() != 0o755 {
		return false, nil
	}
	return equal(f, src)
}

func equal(a, b io.Reader) (bool, error) {
	bufA, bufB := make([]byte, 256<<10), make([]byte, 256<<10)
	for {
		n, errA := io.ReadFull(a, bufA)
		m, errB := io.ReadFull(b, bufB)
		if !bytes.Equal(bufA[:n], bufB[:m]) {
			return false, nil
		}
		if done(errA) || done(errB) {
			return done(errA) && done(errB), nil
		}
		if err := errors.Join(errA, errB); err != nil {
			return false, err
		}
	}
}

func done(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// replace writes src beside path and renames it over path. The data is synced
// first: after a power cut a half-written runc would look finished.
func replace(path string, src io.Reader) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	_, err = io.Copy(tmp, src)
	err = errors.Join(err, tmp.Chmod(0o755), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
