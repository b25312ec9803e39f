package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// stdio is what a process reads and writes.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// begin starts argv in the peer's namespaces and cgroup. A peer that does not
// run gets new mounts; otherwise the process sees those of the peer's others.
// The process has a session of its own, so that an interrupt at the terminal
// reaches only the lab's command.
func begin(ctx context.Context, dir string, p Peer, argv []string, io stdio) (*exec.Cmd, error) {
	pids, err := residents(p.Cgroup)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = io.in, io.out, io.err
	cmd.Env = append(os.Environ(), "KUBECONFIG="+p.Kubeconfig())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = onThread(func() error {
		if err := enter(pin(dir, p.Name), unix.CLONE_NEWNET); err != nil {
			return err
		}
		entered, err := enterMounts(pids)
		if err != nil {
			return err
		}
		if !entered {
			cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS // Go makes them private, too
		}
		// A leaf: with cgroup v2 no group that has children may have processes.
		v2, err := joinThread(filepath.Join(p.Cgroup, "lab"))
		if err != nil {
			return err
		}
		if v2 != nil {
			defer func() { _ = v2.Close() }()
			cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(v2.Fd())
		}
		return cmd.Start()
	})
	if err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", filepath.Base(argv[0]), p.Name, err)
	}
	return cmd, nil
}

// enterMounts puts the calling thread into the mount namespace that the
// processes share; processes that end meanwhile are passed over.
func enterMounts(pids []int) (bool, error) {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return false, fmt.Errorf("read mount namespace: %w", err)
	}
	for _, pid := range pids {
		path := fmt.Sprintf("/proc/%d/ns/mnt", pid)
		if its, err := os.Readlink(path); err != nil || its == own {
			continue
		}
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return false, fmt.Errorf("unshare file system context: %w", err)
		}
		err := enter(path, unix.CLONE_NEWNS)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

// run runs argv on the peer to its end; a failure carries the last line that
// it wrote to stderr.
func (l *Lab) run(ctx context.Context, p Peer, argv []string) (stdout string, err error) {
	var out, tail bytes.Buffer
	cmd, err := begin(ctx, l.cfg.Dir, p, argv, stdio{out: &out, err: io.MultiWriter(l.cfg.Out, &tail)})
	if err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("peer %s: %s: %w: %s", p.Name, shown(argv), err, lastLine(tail.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// shown is a command line without what follows its verb: tokens stay secret.
func shown(argv []string) string {
	if len(argv) > 1 {
		return filepath.Base(argv[0]) + " " + argv[1]
	}
	return filepath.Base(argv[0])
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// Exec runs argv on the peer with the caller's streams. An exit code that is
// not 0 is an *exec.ExitError.
func (l *Lab) Exec(ctx context.Context, name string, argv []string, in io.Reader, out, errOut io.Writer) error {
	if len(argv) == 0 {
		return errors.New("exec: no command given")
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return fmt.Errorf("exec: %w", err)
	}
	var cmd *exec.Cmd
	err = l.withPeer(ctx, name, func(_ *state, p *Peer) error {
		var err error
		cmd, err = begin(ctx, l.cfg.Dir, *p, append([]string{path}, argv[1:]...), stdio{in, out, errOut})
		return err
	})
	if err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("exec on %s: %w", name, err)
	}
	return nil
}
