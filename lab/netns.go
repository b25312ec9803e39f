package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// onThread runs f on an operating system thread that is thrown away after it,
// so that f may change the thread's namespaces and cgroups. It is never the
// main thread, which cannot be thrown away.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Gettid() == os.Getpid() {
			done <- onThread(f)
			return
		}
		done <- f()
	}()
	return <-done
}

// pinNamespace makes a network namespace and binds it to a file, unless that
// has been done. The namespace lives until the file is unbound and the last
// process in it is gone.
func pinNamespace(path string) error {
	if pinned(path) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("pin namespace: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o400)
	if err != nil {
		return fmt.Errorf("pin namespace: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("pin namespace: %w", err)
	}
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		own := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		if err := unix.Mount(own, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("pin namespace %s: %w", path, err)
		}
		return nil
	})
}

// pinned reports whether path is bound to a namespace.
func pinned(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// unpinAll unbinds all namespaces of a lab.
func unpinAll(dir string) error {
	pins, err := os.ReadDir(filepath.Join(dir, "ns"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list namespaces: %w", err)
	}
	for _, e := range pins {
		path := pin(dir, e.Name())
		for pinned(path) {
			if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
				return fmt.Errorf("unpin namespace %s: %w", path, err)
			}
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("unpin namespace: %w", err)
		}
	}
	return nil
}

// enter puts the calling thread into the namespace that path leads to.
func enter(path string, kind int) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("enter namespace: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := unix.Setns(int(f.Fd()), kind); err != nil {
		return fmt.Errorf("enter namespace %s: %w", path, err)
	}
	return nil
}

// mountsBelow lists this process' mounts below dir, the last one first.
func mountsBelow(dir string) ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			out = append([]string{f[4]}, out...)
		}
	}
	return out, nil
}
