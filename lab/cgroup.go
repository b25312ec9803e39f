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
	"time"

	"golang.org/x/sys/unix"
)

// hierarchy is one mounted cgroup tree.
type hierarchy struct {
	dir string
	v2  bool
	// join says that processes are put into it: not so for cpuset of cgroup
	// v1, whose new groups have no CPUs.
	join bool
}

func hierarchies() ([]hierarchy, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list cgroups: %w", err)
	}
	var all []hierarchy
	for line := range strings.Lines(string(data)) {
		left, right, _ := strings.Cut(line, " - ")
		at, kind := strings.Fields(left), strings.Fields(right)
		if len(at) < 5 || len(kind) < 3 || at[3] != "/" {
			continue
		}
		switch kind[0] {
		case "cgroup2":
			all = append(all, hierarchy{dir: at[4], v2: true, join: true})
		case "cgroup":
			cpuset := strings.Contains(","+kind[2]+",", ",cpuset,")
			all = append(all, hierarchy{dir: at[4], join: !cpuset})
		}
	}
	if len(all) == 0 {
		return nil, errors.New("list cgroups: none is mounted: processes could not be told apart")
	}
	return all, nil
}

// processes lists the processes in a cgroup and below, in any hierarchy,
// without this one.
func processes(name string) ([]int, error) { return processesTo(name, -1) }

// residents lists the processes in a cgroup and its children: the peer's own
// programs. Its containers are in deeper ones and have mounts of their own.
func residents(name string) ([]int, error) { return processesTo(name, 1) }

// processesTo goes depth levels down; -1 means all.
func processesTo(name string, depth int) ([]int, error) {
	hs, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, h := range hs {
		root := filepath.Join(h.dir, name)
		err := walk(root, func(dir string) error {
			if depth >= 0 && strings.Count(strings.TrimPrefix(dir, root), "/") > depth {
				return filepath.SkipDir
			}
			data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			if err != nil {
				return nil //nolint:nilerr // the group is gone
			}
			for f := range strings.FieldsSeq(string(data)) {
				if pid, err := strconv.Atoi(f); err == nil && pid > 1 && pid != os.Getpid() {
					pids = append(pids, pid)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// walk calls f for dir and the directories below, parents first.
func walk(dir string, f func(dir string) error) error {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil
		}
		if err != nil {
			return err
		}
		if !d.IsDir() {
			return nil
		}
		return f(path)
	})
	if err != nil {
		return fmt.Errorf("walk cgroup: %w", err)
	}
	return nil
}

// killAll sends SIGKILL to all processes in a cgroup and below until there are none.
func killAll(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		pids, err := processes(name)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill process %d: %w", pid, err)
			}
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("kill processes of %s: %v are still there: %w", name, pids, err)
		}
	}
}

// removeCgroup removes a cgroup without processes and all below it.
func removeCgroup(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	hs, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hs {
		for {
			err := removeTree(filepath.Join(h.dir, name))
			if err == nil {
				break
			}
			// A process that has just been killed still holds its group.
			if !errors.Is(err, unix.EBUSY) {
				return err
			}
			if perr := pause(ctx); perr != nil {
				return errors.Join(err, perr)
			}
		}
	}
	return nil
}

func removeTree(dir string) error {
	var dirs []string
	if err := walk(dir, func(d string) error { dirs = append(dirs, d); return nil }); err != nil {
		return err
	}
	for _, d := range slices.Backward(dirs) {
		if err := unix.Rmdir(d); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove cgroup %s: %w", d, err)
		}
	}
	return nil
}

// joinThread puts the calling thread into the cgroup in the hierarchies of
// version 1: what it starts is born there. For version 2 it returns the open
// directory that a child is to be born in.
func joinThread(name string) (v2 *os.File, err error) {
	hs, err := hierarchies()
	if err != nil {
		return nil, err
	}
	for _, h := range hs {
		if !h.join {
			continue
		}
		dir := filepath.Join(h.dir, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make cgroup: %w", err)
		}
		if h.v2 {
			if v2, err = os.Open(dir); err != nil {
				return nil, fmt.Errorf("join cgroup: %w", err)
			}
			continue
		}
		tid := []byte(strconv.Itoa(unix.Gettid()))
		if err := os.WriteFile(filepath.Join(dir, "tasks"), tid, 0); err != nil {
			return nil, fmt.Errorf("join cgroup: %w", err)
		}
	}
	return v2, nil
}
