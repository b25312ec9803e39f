//go:build linux

package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Plan is what a guest does after its boot: file /plan.json of its root.
type Plan struct {
	Modules []string `json:"modules"` // files in /modules, in order
	Steps   []Step   `json:"steps"`
}

// Step is one shell script that the guest runs. The first one that fails ends
// the plan, but for those marked Always.
type Step struct {
	Name   string `json:"name"`
	Script string `json:"script"`
	Always bool   `json:"always,omitempty"`
}

// Done and Failed are the last lines that a guest writes.
const (
	Done   = "guest: plan done"
	Failed = "guest: plan failed"
)

// Guest is a machine to boot.
type Guest struct {
	Kernel  *Kernel
	Modules []string         // names; see Kernel.Modules
	Init    string           // the program of tests/vm/init
	Busybox string           // a static busybox
	Fill    func(root *Tree) // adds what the plan needs
	Steps   []Step           // what to do
	Memory  int              // MiB; 0 means 2048
	Console io.Writer        // gets all that the guest writes
	Within  time.Duration    // the whole run; 0 means 10 minutes
	Dir     string           // for the root file system's archive
}

// Run boots the guest and returns when it has powered off. The error tells
// whether its plan was done.
func (g *Guest) Run(ctx context.Context) error {
	archive := filepath.Join(g.Dir, "root.cpio")
	if err := g.pack(archive); err != nil {
		return err
	}
	defer os.Remove(archive)
	if g.Memory == 0 {
		g.Memory = 2048
	}
	if g.Within == 0 {
		g.Within = 10 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, g.Within)
	defer cancel()
	var seen strings.Builder
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-accel", "tcg", "-M", "q35", "-cpu", "max", "-smp", "2", "-m", fmt.Sprint(g.Memory),
		"-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio", "-nic", "none",
		"-kernel", g.Kernel.Image, "-initrd", archive,
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on")
	cmd.Stdout = io.MultiWriter(g.Console, &seen)
	cmd.Stderr = cmd.Stdout
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("run guest: it did not end within %v", g.Within)
	case err != nil:
		return fmt.Errorf("run guest: %w", err)
	case !strings.Contains(seen.String(), Done):
		return errors.New("run guest: its plan was not done")
	}
	return nil
}

func (g *Guest) pack(archive string) error {
	modules, err := g.Kernel.Modules(g.Modules...)
	if err != nil {
		return err
	}
	f, err := os.Create(archive)
	if err != nil {
		return fmt.Errorf("create root file system: %w", err)
	}
	defer f.Close()
	root := NewTree(f)
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "var/lib", "etc", "root", "modules", "newroot"} {
		root.Dir(dir)
	}
	root.File("init", g.Init)
	root.File("bin/busybox", g.Busybox)
	root.Link("bin/sh", "busybox")
	// Container engines give each container a copy of these.
	root.Bytes("etc/hosts", 0o644, []byte("127.0.0.1 localhost\n"))
	root.Bytes("etc/resolv.conf", 0o644, nil)
	root.Bytes("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\n"))
	root.Bytes("etc/group", 0o644, []byte("root:x:0:\n"))
	plan := Plan{Steps: g.Steps}
	for _, path := range modules {
		root.File("modules/"+filepath.Base(path), path)
		plan.Modules = append(plan.Modules, filepath.Base(path))
	}
	b, err := json.Marshal(plan)
	if err != nil {
		return fmt.Errorf("encode plan: %w", err)
	}
	root.Bytes("plan.json", 0o644, b)
	if g.Fill != nil {
		g.Fill(root)
	}
	return errors.Join(root.Close(), f.Close())
}
