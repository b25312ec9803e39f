// Package programs carries the small static programs that run beside skein:
// guard, cni, containerd-shim-runc-v2, runc and pause.
//
// Its invariant: a program on disk is whole and executable at every moment,
// also while it is replaced, because processes of an older peer may run it.
package programs

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
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
	p, err := find(name)
	if err != nil {
		return nil, fmt.Errorf("program %s: %w", name, err)
	}
	var out bytes.Buffer
	out.Grow(int(p.size))
	if err := p.copyTo(&out); err != nil {
		return nil, fmt.Errorf("program %s: %w", name, err)
	}
	return out.Bytes(), nil
}

// packed is one program as the binary carries it: a gzip file of one member.
// Most of its pages stay out of memory when the program is unpacked already,
// since the file's last bytes tell what it holds (RFC 1952, section 2.3.1).
type packed struct {
	name string
	sum  uint32 // CRC-32 of the program
	size int64
}

const trailer = 8 // CRC-32 and size, 4 bytes each, little-endian

func find(name string) (packed, error) {
	f, err := bin.Open(file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return packed{}, ErrNotBuilt
	} else if err != nil {
		return packed{}, err
	}
	defer f.Close()
	var last [trailer]byte
	if _, err := f.(io.Seeker).Seek(-trailer, io.SeekEnd); err != nil {
		return packed{}, err
	}
	if _, err := io.ReadFull(f, last[:]); err != nil {
		return packed{}, err
	}
	return packed{name, binary.LittleEndian.Uint32(last[:4]), int64(binary.LittleEndian.Uint32(last[4:]))}, nil
}

func file(name string) string { return "bin/" + name + ".gz" }

// copyTo writes the program to w.
func (p packed) copyTo(w io.Writer) error {
	f, err := bin.Open(file(p.name))
	if err != nil {
		return err
	}
	defer f.Close()
	unzip, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, unzip)
	return errors.Join(err, unzip.Close())
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
	p, err := find(name)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, name)
	if p.isAt(path) {
		return nil
	}
	return replace(path, p.copyTo)
}

// isAt reports whether the file at path is the program. A missing or
// unreadable file is not.
func (p packed) isAt(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	if have, err := f.Stat(); err != nil || have.Size() != p.size || have.Mode() != 0o755 {
		return false
	}
	sum := crc32.NewIEEE()
	_, err = io.Copy(sum, f)
	return err == nil && sum.Sum32() == p.sum
}

// replace writes a file beside path and renames it over path. The data is synced
// first: after a power cut a half-written runc would look finished.
func replace(path string, write func(io.Writer) error) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	err = errors.Join(write(tmp), tmp.Chmod(0o755), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
