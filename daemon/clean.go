package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"skein.dev/skein/network"
	"skein.dev/skein/network/nft"
)

// EndContainers ends all processes of the peer that c describes, containers
// and their shims included, and takes down what they had mounted. The guard
// and all that it started must have stopped.
func EndContainers(ctx context.Context, c Config) error {
	if c.APIOnly() {
		return nil // it started none
	}
	if strings.Trim(c.CgroupParent, "/") == "" {
		return errors.New("cgroup parent is the root: the peer's containers cannot be told from other processes")
	}
	trees, err := cgroupTrees(c.CgroupParent)
	if err != nil {
		return err
	}
	for _, tree := range trees {
		if err := endTree(ctx, tree); err != nil {
			return err
		}
	}
	return unmountBelow(c.StateDir, c.DataDir)
}

// cgroupTrees are the directories of parent in every hierarchy there is.
func cgroupTrees(parent string) ([]string, error) {
	const root = "/sys/fs/cgroup"
	hierarchies, err := filepath.Glob(root + "/*")
	if err != nil {
		return nil, fmt.Errorf("list cgroups: %w", err)
	}
	var out []string
	for _, h := range append(hierarchies, root) {
		dir := filepath.Join(h, parent)
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			out = append(out, dir)
		}
	}
	return out, nil
}

// endTree kills whatever is in a cgroup and below, until nothing is, and
// removes the cgroups from the leaves up.
func endTree(ctx context.Context, root string) error {
	for {
		pids, dirs, err := readTree(root)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			for _, dir := range slices.Backward(dirs) {
				if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EBUSY) {
					return fmt.Errorf("remove cgroup: %w", err)
				}
			}
			return nil
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("end process %d: %w", pid, err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("end processes in %s: %w", root, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// readTree returns the processes in root and below, without this one, and
// the directories, parents before children.
func readTree(root string) (pids []int, dirs []string, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.IsDir() {
			return err
		}
		dirs = append(dirs, path)
		raw, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return nil //nolint:nilerr // gone meanwhile, or a domain that lists its threads elsewhere
		}
		for field := range strings.FieldsSeq(string(raw)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 1 && pid != os.Getpid() {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read cgroup: %w", err)
	}
	return pids, dirs, nil
}

// unmountBelow detaches all mounts below the directories, last mounted first.
func unmountBelow(dirs ...string) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	defer f.Close()
	var points []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\134`, `\`).Replace(fields[4])
		if slices.ContainsFunc(dirs, func(d string) bool { return strings.HasPrefix(point, d+"/") }) {
			points = append(points, point)
		}
	}
	for _, point := range slices.Backward(points) {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", point, err)
		}
	}
	return nil
}

// Clean removes what the peer's parts have written into the kernel.
func Clean(ctx context.Context, c Config) error {
	if c.APIOnly() {
		return nil
	}
	r, err := loadRecord(c.DataDir)
	if err != nil {
		return err
	}
	n, err := network.New(network.Config{
		Peer: r.Name, Peers: &network.Feed{}, ClusterCIDRs: r.Settings.ClusterCIDRs, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	table, err := nft.New(nft.Config{})
	if err != nil {
		return err
	}
	return errors.Join(n.Clean(ctx), table.Clean(ctx))
}
