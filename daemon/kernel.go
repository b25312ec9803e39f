package daemon

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/google/nftables"
)

// checkKernel fails with one clear error if the kernel lacks what a peer
// cannot do without.
func checkKernel() error {
	raw, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return fmt.Errorf("list the kernel's file systems: %w", err)
	}
	if !strings.Contains(string(raw), "\toverlay\n") {
		if _, err := os.Stat("/sys/module/overlay"); err != nil {
			return hinted{errors.New("the kernel has no overlay file system, which images need"), "load it with `modprobe overlay`"}
		}
	}
	c, err := nftables.New()
	if err == nil {
		_, err = c.ListTables()
	}
	if err != nil {
		return hinted{fmt.Errorf("the kernel has no nftables, which services need: %w", err), "load it with `modprobe nf_tables`"}
	}
	if _, err := os.Stat("/sys/fs/cgroup"); err != nil {
		return fmt.Errorf("the kernel's cgroups are not mounted: %w", err)
	}
	return nil
}
