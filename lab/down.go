package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

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

func killOnce(pids []int) error {
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
	return nil
}
