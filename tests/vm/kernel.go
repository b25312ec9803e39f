//go:build linux

// Package vm boots Debian's cloud kernel in QEMU with a root file system of
// its own making: the tier for what this machine's kernel cannot show, cgroup
// v2 above all.
//
// Its invariant: a guest has no disk and no network card, so nothing it does
// reaches the machine but its console.
package vm

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Kernel is an unpacked kernel package of Debian.
type Kernel struct {
	Image   string            // the file to boot
	modules map[string]string // name with "_" -> path of the .ko
}

const kernelPackage = "linux-image-cloud-amd64"

// FetchKernel downloads and unpacks Debian's current cloud kernel into dir,
// unless it is there.
func FetchKernel(ctx context.Context, dir string) (*Kernel, error) {
	root := filepath.Join(dir, "root")
	if k, err := openKernel(root); err == nil {
		return k, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make kernel directory: %w", err)
	}
	name, err := kernelName(ctx)
	if err != nil {
		return nil, err
	}
	if err := run(ctx, dir, "apt-get", "download", name); err != nil {
		return nil, err
	}
	debs, err := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
	if err != nil || len(debs) == 0 {
		return nil, fmt.Errorf("find downloaded kernel %s: %w", name, errors.Join(err, fs.ErrNotExist))
	}
	if err := run(ctx, dir, "dpkg-deb", "-x", debs[len(debs)-1], root); err != nil {
		return nil, err
	}
	return openKernel(root)
}

// kernelName is the package that the current kernel's metapackage stands for.
func kernelName(ctx context.Context) (string, error) {
	for _, update := range []bool{false, true} {
		if update {
			if err := run(ctx, "", "apt-get", "update", "-q"); err != nil {
				return "", err
			}
		}
		out, err := exec.CommandContext(ctx, "apt-cache", "depends", kernelPackage).Output()
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(out)) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok && strings.HasPrefix(name, "linux-image-") {
				return name, nil
			}
		}
	}
	return "", fmt.Errorf("find kernel: apt knows no %s", kernelPackage)
}

func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func openKernel(root string) (*Kernel, error) {
	images, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return nil, fmt.Errorf("find kernel in %s: %w", root, errors.Join(err, fs.ErrNotExist))
	}
	k := &Kernel{Image: images[0], modules: map[string]string{}}
	err = filepath.WalkDir(filepath.Join(root, "lib", "modules"), func(path string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok {
			k.modules[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list kernel modules: %w", err)
	}
	return k, nil
}

// Modules returns the files of the named modules and of those they depend on,
// in the order in which they load. A name that the kernel has no file for is
// built in, or is missed later by who needs it.
func (k *Kernel) Modules(names ...string) ([]string, error) {
	var order []string
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		name = strings.ReplaceAll(name, "-", "_")
		path, ok := k.modules[name]
		if !ok || seen[name] {
			return nil
		}
		seen[name] = true
		deps, err := dependencies(path)
		if err != nil {
			return err
		}
		for _, d := range deps {
			if err := visit(d); err != nil {
				return err
			}
		}
		order = append(order, path)
		return nil
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// dependencies reads what depmod would: the field of the module itself.
func dependencies(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", path, err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("read module %s: it has no modinfo", path)
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", path, err)
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := strings.CutPrefix(string(field), "depends="); ok && list != "" {
			return strings.Split(list, ","), nil
		}
	}
	return nil, nil
}
