package guard

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// bootID names the machine's boot: after another, no process written down
// before can live.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// harden makes the guard the last process that a starved machine loses. What
// is not permitted is returned and nothing fails: a guard less hard is better
// than none.
func harden(cgroup string) []error {
	var missing []error
	if err := joinCgroup(cgroup, os.Getpid()); err != nil {
		missing = append(missing, err)
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(guardScore.String()), 0); err != nil {
		missing = append(missing, fmt.Errorf("lower oom score: %w", err))
	}
	if err := lockMemory(); err != nil {
		missing = append(missing, fmt.Errorf("lock memory: %w", err))
	}
	return missing
}

// lockMemory keeps what the guard has touched in memory. Pages are locked as
// they are touched: Go reserves far more than it uses. Without the capability
// it is not tried, since a limit reached later would make allocations fail.
func lockMemory() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err != nil {
		return err
	}
	if caps[0].Effective&(1<<unix.CAP_IPC_LOCK) == 0 {
		return unix.EPERM
	}
	return unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
}

// joinCgroup moves a process into the cgroup of that name, made when missing,
// in every mounted hierarchy. cpuset of cgroup v1 is left out: a new group of
// it has no CPUs and takes no process.
func joinCgroup(name string, pid int) error {
	if name == "" {
		return nil
	}
	mounts, err := cgroupMounts()
	if err != nil {
		return err
	}
	if len(mounts) == 0 {
		return errors.New("join cgroup: none is mounted")
	}
	var failed []error
	for _, m := range mounts {
		dir := filepath.Join(m, name)
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("join cgroup: %w", err))
		}
	}
	return errors.Join(failed...)
}

// cgroupMounts lists the mount points of the cgroup hierarchies.
func cgroupMounts() ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list cgroups: %w", err)
	}
	defer f.Close()
	var mounts []string
	for s := bufio.NewScanner(f); s.Scan(); {
		// 36 35 98:0 /root /point options ... - type source superoptions
		left, right, _ := strings.Cut(s.Text(), " - ")
		fields, fs := strings.Fields(left), strings.Fields(right)
		if len(fields) < 5 || len(fs) < 3 || fields[3] != "/" {
			continue
		}
		v1 := fs[0] == "cgroup" && !strings.Contains(","+fs[2]+",", ",cpuset,")
		if v1 || fs[0] == "cgroup2" {
			mounts = append(mounts, fields[4])
		}
	}
	return mounts, nil
}
