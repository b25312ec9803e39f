package main

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// debian makes trees of Debian's packages, which apt-get fetches once into
// a directory. Nothing is installed on this machine.
type debian struct{ dir string }

// tree is the named packages with the libraries that they depend on, without
// what no program reads. That the libraries are complete is checked.
func (d debian) tree(ctx context.Context, packages ...string) (tree, error) {
	all, err := libraries(ctx, packages)
	if err != nil {
		return nil, err
	}
	if err := d.fetch(ctx, all); err != nil {
		return nil, err
	}
	t := tree{}
	for _, p := range all {
		if err := t.add(filepath.Join(d.dir, p), needed); err != nil {
			return nil, err
		}
	}
	return t, t.checkLibraries()
}

// needed reports whether programs may read a path of a package.
func needed(p string) bool {
	for _, dir := range []string{"usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/bug", "usr/share/bash-completion"} {
		if p == dir || strings.HasPrefix(p, dir+"/") {
			return false
		}
	}
	return true
}

// libraries adds to the packages the library packages that they depend on.
func libraries(ctx context.Context, packages []string) ([]string, error) {
	all := slices.Clone(packages)
	for next := packages; len(next) > 0; {
		// One question for many: apt reads its whole cache for each.
		out, err := exec.CommandContext(ctx, "apt-cache", append([]string{"depends", "--important"}, next...)...).Output()
		if err != nil {
			return nil, fmt.Errorf("ask apt what %v depend on: %w", next, err)
		}
		next = nil
		for line := range strings.Lines(string(out)) {
			kind, name, ok := strings.Cut(strings.TrimLeft(strings.TrimSpace(line), "|"), ": ")
			library := strings.HasPrefix(name, "lib") || strings.HasSuffix(name, "-libs") || name == "zlib1g"
			if ok && strings.HasSuffix(kind, "Depends") && library && !slices.Contains(all, name) {
				all, next = append(all, name), append(next, name)
			}
		}
	}
	slices.Sort(all)
	return all, nil
}

// fetch unpacks those of the packages that are not there yet, each into the
// directory of its name.
func (d debian) fetch(ctx context.Context, packages []string) error {
	missing := slices.DeleteFunc(slices.Clone(packages), func(p string) bool {
		_, err := os.Stat(filepath.Join(d.dir, p))
		return err == nil
	})
	if len(missing) == 0 {
		return nil
	}
	tmp, err := os.MkdirTemp(d.dir, ".fetch-")
	if err != nil {
		return fmt.Errorf("fetch packages: %w", err)
	}
	defer os.RemoveAll(tmp)
	fetch := exec.CommandContext(ctx, "apt-get", append([]string{"download", "-q", "-o", "APT::Sandbox::User=root"}, missing...)...)
	fetch.Dir = tmp
	if out, err := fetch.CombinedOutput(); err != nil {
		return fmt.Errorf("fetch packages %v: %w: %s", missing, err, bytes.TrimSpace(out))
	}
	for _, p := range missing {
		files, err := filepath.Glob(filepath.Join(tmp, p+"_*.deb"))
		if err != nil || len(files) != 1 {
			return fmt.Errorf("fetch package %s: %d files came", p, len(files))
		}
		to := filepath.Join(tmp, p)
		if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", files[0], to).CombinedOutput(); err != nil {
			return fmt.Errorf("unpack package %s: %w: %s", p, err, bytes.TrimSpace(out))
		}
		if err := os.Rename(to, filepath.Join(d.dir, p)); err != nil {
			return fmt.Errorf("unpack package %s: %w", p, err)
		}
	}
	return nil
}

// checkLibraries fails if a program of the tree needs a library that is not in it.
func (t tree) checkLibraries() error {
	have := map[string]bool{}
	for p := range t {
		have[path.Base(p)] = true
	}
	var errs []error
	for p, e := range t {
		if !bytes.HasPrefix(e.data, []byte(elf.ELFMAG)) {
			continue
		}
		f, err := elf.NewFile(bytes.NewReader(e.data))
		if err != nil {
			return fmt.Errorf("read %s: %w", p, err)
		}
		wanted, err := f.ImportedLibraries()
		if err != nil {
			return fmt.Errorf("read %s: %w", p, err)
		}
		for _, lib := range wanted {
			if !have[lib] {
				errs = append(errs, fmt.Errorf("%s needs %s, which no package here has", p, lib))
			}
		}
	}
	return errors.Join(errs...)
}
