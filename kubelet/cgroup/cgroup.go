// Package cgroup makes and removes the cgroups above containers: the classes
// of service and the pods, in every hierarchy that is mounted.
//
// Its invariant: it removes only cgroups below its own root, and only those
// without processes.
package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Limits of one cgroup. Zero means no limit.
type Limits struct {
	CPUShares   int64
	CPUQuota    int64 // in microseconds a period
	CPUPeriod   int64
	MemoryBytes int64
	Pids        int64
}

// hierarchy is one mounted cgroup tree.
type hierarchy struct {
	dir         string
	unified     bool
	controllers []string
}

// Tree is the node's cgroups.
type Tree struct {
	root        string
	hierarchies []hierarchy
}

// Open finds the mounted hierarchies; root is the path in each below which
// the kubelet's cgroups are.
func Open(root string) (*Tree, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	h := parse(b)
	if len(h) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted")
	}
	return &Tree{root: filepath.Join("/", root), hierarchies: h}, nil
}

// parse takes the cgroup mounts out of a mountinfo, each directory once.
func parse(mountinfo []byte) []hierarchy {
	var out []hierarchy
	for sc := bufio.NewScanner(bytes.NewReader(mountinfo)); sc.Scan(); {
		left, right, ok := strings.Cut(sc.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 || (r[0] != "cgroup" && r[0] != "cgroup2") {
			continue
		}
		h := hierarchy{dir: l[4], unified: r[0] == "cgroup2", controllers: strings.Split(r[2], ",")}
		out = slices.DeleteFunc(out, func(o hierarchy) bool { return o.dir == h.dir })
		out = append(out, h)
	}
	return out
}

// Unified reports whether the controllers are those of cgroup v2.
func (t *Tree) Unified() bool {
	return !slices.ContainsFunc(t.hierarchies, func(h hierarchy) bool { return !h.unified })
}

// Lacks returns which of the controllers no hierarchy offers.
func (t *Tree) Lacks(controllers ...string) []string {
	return slices.DeleteFunc(controllers, func(c string) bool {
		return slices.ContainsFunc(t.hierarchies, func(h hierarchy) bool { return h.offers(c) })
	})
}

func (h hierarchy) offers(controller string) bool {
	if !h.unified {
		return slices.Contains(h.controllers, controller)
	}
	b, err := os.ReadFile(filepath.Join(h.dir, "cgroup.controllers"))
	return err == nil && slices.Contains(strings.Fields(string(b)), controller)
}

// Ensure makes the cgroup at path (as the runtime is told it, root included)
// and its parents in every hierarchy, and sets its limits.
func (t *Tree) Ensure(path string, l Limits) error {
	if !t.inside(path) {
		return fmt.Errorf("make cgroup %s: not below %s", path, t.root)
	}
	for _, h := range t.hierarchies {
		if err := h.make(path); err != nil {
			return fmt.Errorf("make cgroup %s in %s: %w", path, h.dir, err)
		}
		for name, value := range h.files(l, t.Unified()) {
			err := os.WriteFile(filepath.Join(h.dir, path, name), []byte(value), 0o644)
			if err != nil && !errors.Is(err, os.ErrNotExist) { // a controller that is not there limits nothing
				return fmt.Errorf("limit cgroup %s: %w", path, err)
			}
		}
	}
	return nil
}

func (t *Tree) inside(path string) bool {
	p := filepath.Join("/", path)
	return p != t.root && (t.root == "/" || strings.HasPrefix(p, t.root+"/"))
}

// make creates path step by step: v2 enables the controllers for the children
// on the way, v1's cpuset must be told its CPUs and memory nodes.
func (h hierarchy) make(path string) error {
	dir := h.dir
	for step := range strings.SplitSeq(strings.Trim(filepath.Clean(path), "/"), "/") {
		if h.unified {
			h.enable(dir)
		}
		child := filepath.Join(dir, step)
		if err := os.Mkdir(child, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if slices.Contains(h.controllers, "cpuset") && !h.unified {
			for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
				if err := inherit(dir, child, f); err != nil {
					return err
				}
			}
		}
		dir = child
	}
	if h.unified {
		h.enable(dir) // a pod's cgroup has no processes of its own
	}
	return nil
}

// enable delegates each controller by itself: one that cannot be must not
// take the others with it.
func (h hierarchy) enable(dir string) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for c := range strings.FieldsSeq(string(b)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644) // what is missing limits nothing
	}
}

func inherit(parent, child, name string) error {
	have, err := os.ReadFile(filepath.Join(child, name))
	if err != nil || len(bytes.TrimSpace(have)) > 0 {
		return err
	}
	b, err := os.ReadFile(filepath.Join(parent, name))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(child, name), b, 0o644)
}

// files are the control files of this hierarchy and what to write there.
func (h hierarchy) files(l Limits, unified bool) map[string]string {
	has := func(c string) bool { return slices.Contains(h.controllers, c) }
	num := func(n int64) string { return strconv.FormatInt(n, 10) }
	out := map[string]string{}
	if h.unified {
		if !unified {
			return out // hybrid: the controllers are in v1
		}
		if l.CPUShares > 0 {
			out["cpu.weight"] = num(Weight(l.CPUShares))
		}
		if l.CPUPeriod > 0 {
			quota := "max"
			if l.CPUQuota > 0 {
				quota = num(l.CPUQuota)
			}
			out["cpu.max"] = quota + " " + num(l.CPUPeriod)
		}
		if l.MemoryBytes > 0 {
			out["memory.max"] = num(l.MemoryBytes)
		}
		if l.Pids > 0 {
			out["pids.max"] = num(l.Pids)
		}
		return out
	}
	if has("cpu") && l.CPUShares > 0 {
		out["cpu.shares"] = num(l.CPUShares)
	}
	if has("cpu") && l.CPUQuota > 0 {
		out["cpu.cfs_period_us"], out["cpu.cfs_quota_us"] = num(l.CPUPeriod), num(l.CPUQuota)
	}
	if has("memory") && l.MemoryBytes > 0 {
		out["memory.limit_in_bytes"] = num(l.MemoryBytes)
	}
	if has("pids") && l.Pids > 0 {
		out["pids.max"] = num(l.Pids)
	}
	return out
}

// Weight converts cgroup v1 shares (2..262144) to a v2 weight (1..10000) on
// a straight line, as KEP-2254 has it.
func Weight(shares int64) int64 {
	return 1 + (min(max(shares, 2), 262144)-2)*9999/262142
}

// Remove removes the cgroup at path and those below it, in every hierarchy.
// It fails while a process is in one.
func (t *Tree) Remove(path string) error {
	if !t.inside(path) {
		return fmt.Errorf("remove cgroup %s: not below %s", path, t.root)
	}
	var errs []error
	for _, h := range t.hierarchies {
		if err := removeTree(filepath.Join(h.dir, path)); err != nil {
			errs = append(errs, fmt.Errorf("remove cgroup: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Kill ends the processes in the cgroup at path and below it: what a runtime
// has lost sight of would keep the cgroup, and with it the pod, for ever. It
// does not wait for their end.
func (t *Tree) Kill(path string) error {
	if !t.inside(path) {
		return fmt.Errorf("kill cgroup %s: not below %s", path, t.root)
	}
	var errs []error
	for _, h := range t.hierarchies {
		err := filepath.WalkDir(filepath.Join(h.dir, path), func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return err
			}
			b, err := os.ReadFile(filepath.Join(p, "cgroup.procs"))
			if err != nil {
				return err
			}
			for f := range strings.FieldsSeq(string(b)) {
				pid, err := strconv.Atoi(f)
				if err != nil || pid <= 1 { // 0 is a process of another pid namespace
					continue
				}
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
					return fmt.Errorf("kill process %d: %w", pid, err)
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("kill cgroup: %w", err))
		}
	}
	return errors.Join(errs...)
}

// removeTree removes directories from the deepest up; control files go with
// them.
func removeTree(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, d := range slices.Backward(dirs) {
		if err := syscall.Rmdir(d); err != nil && !errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("%s: %w", d, err)
		}
	}
	return nil
}

// Pods lists the pod cgroups below root, by UID, with their paths as
// [Tree.Remove] takes them.
func (t *Tree) Pods() map[string]string {
	out := map[string]string{}
	for _, h := range t.hierarchies {
		for _, class := range []string{"", "burstable", "besteffort"} {
			parent := filepath.Join(t.root, "kubepods", class)
			entries, err := os.ReadDir(filepath.Join(h.dir, parent))
			if err != nil {
				continue
			}
			for _, e := range entries {
				if uid, ok := strings.CutPrefix(e.Name(), "pod"); ok && e.IsDir() {
					out[uid] = filepath.Join(parent, e.Name())
				}
			}
		}
	}
	return out
}
