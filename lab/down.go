package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Down takes the lab away, whatever state it is in: processes, cgroups,
// mounts, namespaces with all that is in them, and the directory. It is no
// error if there is none.
func (l *Lab) Down(ctx context.Context) error {
	if _, err := os.Stat(l.cfg.Dir); errors.Is(err, fs.ErrNotExist) {
		return l.sweep(ctx)
	}
	return l.locked(ctx, func() error {
		if err := l.sweep(ctx); err != nil {
			return err
		}
		if err := endStrays(ctx, l.cfg.Dir); err != nil {
			return err
		}
		if err := unpinAll(l.cfg.Dir); err != nil {
			return err
		}
		mounts, err := mountsBelow(l.cfg.Dir)
		if err != nil {
			return err
		}
		for _, m := range mounts {
			if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
				return fmt.Errorf("unmount %s: %w", m, err)
			}
		}
		if err := os.RemoveAll(l.cfg.Dir); err != nil {
			return fmt.Errorf("remove lab: %w", err)
		}
		return nil
	})
}

// sweep ends the lab's processes, the forwarder among them, and removes its cgroups.
func (l *Lab) sweep(ctx context.Context) error {
	root := "/" + l.name
	if err := killAll(ctx, root); err != nil {
		return err
	}
	return removeCgroup(ctx, root)
}

// endStrays ends processes that are in a namespace of the lab although not in
// its cgroups, such as a user's nsenter: they would keep the namespace.
func endStrays(ctx context.Context, dir string) error {
	for {
		pids, err := strays(dir)
		if err != nil || len(pids) == 0 {
			return err
		}
		if err := killOnce(pids); err != nil {
			return err
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("end processes %v: %w", pids, err)
		}
	}
}

func strays(dir string) ([]int, error) {
	pins, err := filepath.Glob(pin(dir, "*"))
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	var spaces []os.FileInfo
	for _, p := range pins {
		if st, err := os.Stat(p); err == nil && pinned(p) {
			spaces = append(spaces, st)
		}
	}
	all, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, path := range all {
		st, err := os.Stat(path)
		if err != nil { // it has ended
			continue
		}
		pid, err := strconv.Atoi(strings.Split(path, "/")[2])
		if err != nil || pid == os.Getpid() {
			continue
		}
		if slices.ContainsFunc(spaces, func(s os.FileInfo) bool { return os.SameFile(s, st) }) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func killOnce(pids []int) error {
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
	return nil
}
