package volume

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// mountPoints lists the mounts of this process at or below dir, deepest last.
func mountPoints(dir string) ([]string, error) {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real // the kernel lists real paths
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	var out []string
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		fields := strings.Fields(sc.Text())
		if len(fields) < 5 {
			continue
		}
		if p := unescape(fields[4]); p == dir || strings.HasPrefix(p, dir+"/") {
			out = append(out, p)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	return out, nil
}

// unescape undoes the kernel's octal escapes of blanks.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isMount(dir string) (bool, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false, fmt.Errorf("find mount: %w", err)
	}
	list, err := mountPoints(real)
	return slices.Contains(list, real), err
}

// unmountBelow ends all mounts at or below dir, the last made first.
func unmountBelow(dir string) error {
	list, err := mountPoints(dir)
	if err != nil {
		return err
	}
	for _, p := range slices.Backward(list) {
		if err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", p, err)
		}
	}
	return nil
}

// SubPath returns a path that shows only sub of the volume at root. The path
// is opened without following anything out of the volume and then bound to a
// place of ours, so that a container cannot exchange it for a link between
// the check and the mount.
func (s *Set) SubPath(pod *corev1.Pod, volume, container string, index int, root, sub string, readOnly bool) (string, error) {
	if filepath.IsAbs(sub) || slices.Contains(strings.Split(sub, "/"), "..") {
		return "", fmt.Errorf("subPath %q must be relative and stay in its volume", sub)
	}
	r, err := os.OpenRoot(root)
	if err != nil {
		return "", fmt.Errorf("open volume %s: %w", volume, err)
	}
	defer func() { _ = r.Close() }() // only read
	info, err := r.Stat(sub)
	if errors.Is(err, os.ErrNotExist) && !readOnly {
		if err := r.MkdirAll(sub, 0o750); err != nil {
			return "", fmt.Errorf("make subPath %q: %w", sub, err)
		}
		info, err = r.Stat(sub)
	}
	if err != nil {
		return "", fmt.Errorf("find subPath %q: %w", sub, err)
	}
	f, err := r.Open(sub)
	if err != nil {
		return "", fmt.Errorf("open subPath %q: %w", sub, err)
	}
	defer func() { _ = f.Close() }() // the mount holds it from here
	at := filepath.Join(s.PodDir(pod.UID), "volume-subpaths", volume, container, strconv.Itoa(index))
	if err := prepare(at, info.IsDir()); err != nil {
		return "", err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("bind subPath %q: %w", sub, err)
	}
	return at, nil
}

// prepare leaves an empty place of the right kind, without mounts of an
// earlier start of the container.
func prepare(at string, dir bool) error {
	if err := unmountBelow(at); err != nil {
		return err
	}
	if err := os.RemoveAll(at); err != nil {
		return fmt.Errorf("clear subPath place: %w", err)
	}
	if dir {
		return wrap("make subPath place", os.MkdirAll(at, 0o750))
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o750); err != nil {
		return fmt.Errorf("make subPath place: %w", err)
	}
	return wrap("make subPath place", os.WriteFile(at, nil, 0o640))
}
