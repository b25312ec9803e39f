//go:build linux

// Command init is the first process of a guest of tests/vm: it makes the
// machine that a plan expects, works the plan off and powers off. Its
// invariant: it always powers off, whatever happens.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"skein.dev/skein/tests/vm"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == planned {
		if err := workPlan(); err != nil {
			fmt.Fprintln(os.Stdout, vm.Failed+":", err)
			os.Exit(1)
		}
		fmt.Fprintln(os.Stdout, vm.Done)
		return
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: only for the first process of a guest")
		os.Exit(2)
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stdout, vm.Failed+":", err)
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintln(os.Stdout, "guest: power off:", err) // the kernel panics when this returns, and that ends QEMU too
	}
}

// planned is the argument of the process that works the plan off.
const planned = "plan"

// run works the plan off in a process of its own and buries whoever is left
// to the first process meanwhile, as any system's does.
func run() error {
	if err := makeRoot(); err != nil {
		return err
	}
	worker, err := os.StartProcess("/init", []string{"/init", planned}, &os.ProcAttr{
		Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return fmt.Errorf("start plan: %w", err)
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for plan: %w", err)
		case pid == worker.Pid:
			return nil // it has said how it went
		}
	}
}

func workPlan() error {
	raw, err := os.ReadFile("/plan.json")
	if err != nil {
		return fmt.Errorf("read plan: %w", err)
	}
	var plan vm.Plan
	if err := json.Unmarshal(raw, &plan); err != nil {
		return fmt.Errorf("decode plan: %w", err)
	}
	for _, m := range plan.Modules {
		if err := load(filepath.Join("/modules", m)); err != nil {
			fmt.Fprintln(os.Stdout, "guest: warning:", err) // what needs it will say so
		}
	}
	return work(plan.Steps)
}

// makeRoot mounts what a system has. The kernel's first root cannot be left
// by pivot_root, which runc does, so the tree is bound once more and the bind
// moved over the root.
func makeRoot() error {
	err := errors.Join(
		unix.Mount("/", "/newroot", "", unix.MS_BIND, ""),
		unix.Chdir("/newroot"),
		unix.Mount(".", "/", "", unix.MS_MOVE, ""),
		unix.Chroot("."),
		unix.Chdir("/"),
	)
	if err != nil {
		return fmt.Errorf("move root: %w", err)
	}
	for _, m := range []struct{ kind, at string }{
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"devtmpfs", "/dev"},
		{"devpts", "/dev/pts"},
		{"tmpfs", "/dev/shm"},
		{"tmpfs", "/run"},
		{"tmpfs", "/tmp"},
		{"tmpfs", "/var/lib"},
		{"cgroup2", "/sys/fs/cgroup"},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s at %s: %w", m.kind, m.at, err)
		}
	}
	// As systemd does: without it containers' mounts do not see the host's.
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	if err := unix.Sethostname([]byte("guest")); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	return exec.CommandContext(context.Background(), "/bin/busybox", "--install", "-s", "/bin").Run()
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("load module: %w", err)
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", filepath.Base(path), err)
	}
	return nil
}

func work(steps []vm.Step) error {
	var failed error
	for _, s := range steps {
		if failed != nil && !s.Always {
			continue
		}
		begin := time.Now()
		fmt.Fprintf(os.Stdout, "guest: %s\n", s.Name)
		cmd := exec.CommandContext(context.Background(), "/bin/sh", "-euc", s.Script)
		cmd.Env = []string{"PATH=/bin", "HOME=/root", "TMPDIR=/tmp"}
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
		err := cmd.Run()
		fmt.Fprintf(os.Stdout, "guest: %s: %.1f s\n", s.Name, time.Since(begin).Seconds())
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", s.Name, err))
		}
	}
	return failed
}
