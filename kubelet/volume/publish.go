package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// file is one file of a volume.
type file struct {
	data  []byte
	mode  os.FileMode
	owner *int64 // nil is root
}

// files are by path below the volume.
type files map[string]file

// dataLink is the name that is renamed over; containers see files through
// it. The names are what programs that watch configuration look for.
const (
	dataLink = "..data"
	dataTemp = "..data_tmp"
)

// checkPath refuses what would leave the volume or hide its machinery.
func checkPath(p string) error {
	clean := filepath.Clean(p)
	if p == "" || filepath.IsAbs(p) || clean == ".." || strings.HasPrefix(clean, "../") || strings.HasPrefix(p, "..") {
		return fmt.Errorf("invalid path %q", p)
	}
	return nil
}

// publish makes dir show exactly f. It does nothing when dir does already.
func publish(dir string, f files, group *int64) error {
	for p := range f {
		if err := checkPath(p); err != nil {
			return err
		}
	}
	old, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read volume link: %w", err)
	}
	if old != "" && same(filepath.Join(dir, old), f, group) {
		return nil
	}
	set, err := os.MkdirTemp(dir, "..set_")
	if err != nil {
		return fmt.Errorf("make set of files: %w", err)
	}
	if err := fill(set, f, group); err != nil {
		return errors.Join(err, os.RemoveAll(set))
	}
	temp := filepath.Join(dir, dataTemp)
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old link: %w", err)
	}
	if err := os.Symlink(filepath.Base(set), temp); err != nil {
		return fmt.Errorf("link set of files: %w", err)
	}
	if err := os.Rename(temp, filepath.Join(dir, dataLink)); err != nil {
		return fmt.Errorf("publish set of files: %w", err)
	}
	if err := links(dir, f); err != nil {
		return err
	}
	return sweep(dir, filepath.Base(set))
}

// same reports whether the set at dir has exactly f.
func same(dir string, f files, group *int64) bool {
	seen := 0
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		want, ok := f[rel]
		if !ok {
			return fs.ErrInvalid
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		have, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if !bytes.Equal(have, want.data) || info.Mode().Perm() != groupMode(want.mode, group) || !ownedBy(info, want.owner) {
			return fs.ErrInvalid
		}
		seen++
		return nil
	})
	return err == nil && seen == len(f)
}

// ownedBy reports whether a file is the owner's.
func ownedBy(info fs.FileInfo, owner *int64) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return owner == nil || ok && int64(st.Uid) == *owner
}

// groupMode lets the pod's group read what the owner may.
func groupMode(m os.FileMode, group *int64) os.FileMode {
	if group != nil {
		m |= 0o440
	}
	return m.Perm()
}

func fill(set string, f files, group *int64) error {
	if err := os.Chmod(set, 0o755); err != nil {
		return fmt.Errorf("open set of files: %w", err)
	}
	for _, p := range slices.Sorted(maps.Keys(f)) {
		full := filepath.Join(set, p)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return fmt.Errorf("make directory of %s: %w", p, err)
		}
		if err := os.WriteFile(full, f[p].data, 0o600); err != nil {
			return fmt.Errorf("write %s: %w", p, err)
		}
		if err := os.Lchown(full, orKeep(f[p].owner), orKeep(group)); err != nil {
			return fmt.Errorf("give %s away: %w", p, err)
		}
		if err := os.Chmod(full, groupMode(f[p].mode, group)); err != nil {
			return fmt.Errorf("set mode of %s: %w", p, err)
		}
	}
	return nil
}

// orKeep is an id as chown wants it.
func orKeep(id *int64) int {
	if id == nil {
		return -1
	}
	return int(*id)
}

// links makes the visible names: one link a first path element.
func links(dir string, f files) error {
	want := map[string]bool{}
	for p := range f {
		top, _, _ := strings.Cut(filepath.Clean(p), "/")
		want[top] = true
	}
	for top := range want {
		target := filepath.Join(dataLink, top)
		link := filepath.Join(dir, top)
		if have, err := os.Readlink(link); err == nil && have == target {
			continue
		}
		if err := os.RemoveAll(link); err != nil {
			return fmt.Errorf("replace %s: %w", top, err)
		}
		if err := os.Symlink(target, link); err != nil {
			return fmt.Errorf("link %s: %w", top, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list volume: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") || want[e.Name()] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("remove %s: %w", e.Name(), err)
		}
	}
	return nil
}

// sweep removes all sets but the published one.
func sweep(dir, keep string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list volume: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), "..set_") && e.Name() != keep {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("remove old set of files: %w", err)
			}
		}
	}
	return nil
}
