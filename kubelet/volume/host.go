package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// emptyDir makes the pod's scratch directory, on disk or in memory.
func (s *Set) emptyDir(pod *corev1.Pod, v *corev1.Volume) (Place, error) {
	dir := s.dir(pod, "empty-dir", v.Name)
	_, err := os.Stat(dir)
	fresh := errors.Is(err, os.ErrNotExist)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Place{}, fmt.Errorf("make directory: %w", err)
	}
	switch v.EmptyDir.Medium {
	case corev1.StorageMediumDefault:
	case corev1.StorageMediumMemory:
		mounted, err := isMount(dir)
		if err != nil {
			return Place{}, err
		}
		if !mounted {
			if err := mountTmpfs(dir, v.EmptyDir.SizeLimit); err != nil {
				return Place{}, err
			}
			fresh = true
		}
	default:
		return Place{}, fmt.Errorf("emptyDir medium %q is not supported", v.EmptyDir.Medium)
	}
	if fresh { // later the mode is the pod's own business
		if err := os.Chmod(dir, 0o777); err != nil {
			return Place{}, fmt.Errorf("open directory: %w", err)
		}
	}
	info, err := os.Stat(dir)
	if err != nil {
		return Place{}, fmt.Errorf("read directory: %w", err)
	}
	if g := fsGroup(pod); g != nil && !owned(info, *g) {
		if err := own(dir, int(*g)); err != nil {
			return Place{}, err
		}
		// Everybody may write to scratch space, its group too.
		if err := os.Chmod(dir, 0o777|os.ModeSetgid); err != nil {
			return Place{}, fmt.Errorf("open directory: %w", err)
		}
	}
	return Place{Host: dir}, nil
}

func mountTmpfs(dir string, limit *resource.Quantity) error {
	opts := ""
	if limit != nil && limit.Value() > 0 {
		opts = fmt.Sprintf("size=%d", limit.Value())
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, opts); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	return nil
}

// owned reports whether the volume's root is the group's already; its
// contents then are too.
func owned(info fs.FileInfo, group int64) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int64(st.Gid) == group && info.Mode()&os.ModeSetgid != 0
}

// own gives a tree to a group.
func own(dir string, group int) error {
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := os.Lchown(p, -1, group); err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		m := info.Mode().Perm() | 0o660
		if d.IsDir() {
			m |= 0o110 | os.ModeSetgid
		}
		return os.Chmod(p, m)
	})
	if err != nil {
		return fmt.Errorf("give volume to group %d: %w", group, err)
	}
	return nil
}

// hostPath checks a path of the node against its type, and makes it where
// the type says so.
func hostPath(h *corev1.HostPathVolumeSource) (Place, error) {
	kind := corev1.HostPathUnset
	if h.Type != nil {
		kind = *h.Type
	}
	place := Place{Host: h.Path}
	info, err := os.Stat(h.Path)
	if errors.Is(err, os.ErrNotExist) {
		switch kind {
		case corev1.HostPathUnset:
			return place, nil // the runtime makes it
		case corev1.HostPathDirectoryOrCreate:
			return place, wrap("make directory", os.MkdirAll(h.Path, 0o755))
		case corev1.HostPathFileOrCreate:
			f, err := os.OpenFile(h.Path, os.O_CREATE|os.O_RDWR, 0o644)
			if err != nil {
				return Place{}, fmt.Errorf("make file: %w", err)
			}
			return place, wrap("make file", f.Close())
		default:
		}
	}
	if err != nil {
		return Place{}, fmt.Errorf("hostPath type check failed: %w", err)
	}
	ok := true
	m := info.Mode()
	switch kind {
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		ok = m.IsDir()
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		ok = m.IsRegular()
	case corev1.HostPathSocket:
		ok = m&os.ModeSocket != 0
	case corev1.HostPathCharDev:
		ok = m&os.ModeCharDevice != 0
	case corev1.HostPathBlockDev:
		ok = m&os.ModeDevice != 0 && m&os.ModeCharDevice == 0
	default:
	}
	if !ok {
		return Place{}, fmt.Errorf("hostPath type check failed: %s is not a %s", h.Path, kind)
	}
	return place, nil
}

func wrap(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// claim resolves a claim to the node's path of its volume. Other kinds of
// persistent volumes need a driver, which is for a later issue.
func (s *Set) claim(ctx context.Context, pod *corev1.Pod, c *corev1.PersistentVolumeClaimVolumeSource) (Place, error) {
	pv, err := s.cfg.Objects.Claimed(ctx, pod.Namespace, c.ClaimName)
	if err != nil {
		return Place{}, err
	}
	var p Place
	switch {
	case pv.Spec.HostPath != nil:
		p, err = hostPath(pv.Spec.HostPath)
	case pv.Spec.Local != nil:
		kind := corev1.HostPathDirectory
		p, err = hostPath(&corev1.HostPathVolumeSource{Path: pv.Spec.Local.Path, Type: &kind})
	default:
		err = errors.New("this node has no driver for the persistent volume")
	}
	if err != nil {
		return Place{}, fmt.Errorf("persistentvolume %q: %w", pv.Name, err)
	}
	p.ReadOnly = p.ReadOnly || c.ReadOnly
	return p, nil
}
