package daemon

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"skein.dev/skein/kubelet/cgroup"
	"skein.dev/skein/network"
)

// checkKernel fails with one clear error if the kernel lacks what a peer
// cannot do without.
func checkKernel() error {
	return errors.Join(checkOverlay(), network.Check(), checkCgroups())
}

// checkOverlay asks for the file system, which loads its module if it can.
func checkOverlay() error {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return hinted{fmt.Errorf("the kernel has no overlay file system, which images need: %w", err), "load it with `modprobe overlay`"}
	}
	return unix.Close(fd)
}

func checkCgroups() error {
	tree, err := cgroup.Open("/")
	if err != nil {
		return hinted{err, "mount cgroup2 at /sys/fs/cgroup"}
	}
	if lacks := tree.Lacks("cpu", "memory", "pids"); len(lacks) > 0 {
		return hinted{
			fmt.Errorf("no mounted cgroup hierarchy offers %s, which limit pods", strings.Join(lacks, ", ")),
			"boot with the controllers on (`cgroup_enable=memory`), or mount them",
		}
	}
	return nil
}
