package cgroup_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"skein.dev/skein/kubelet/cgroup"
)

func TestWeightFollowsSharesOnAStraightLine(t *testing.T) {
	for shares, want := range map[int64]int64{2: 1, 1024: 39, 262144: 10000, 0: 1} {
		if got := cgroup.Weight(shares); got != want {
			t.Errorf("Weight(%d) = %d, want %d", shares, got, want)
		}
	}
}

func TestPodCgroupIsMadeInEveryHierarchyAndRemoved(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("cgroups need root")
	}
	root := "skein-test-" + strconv.Itoa(os.Getpid())
	tree, err := cgroup.Open(root)
	if err != nil {
		t.Skip("no cgroups here:", err)
	}
	pod := "/" + root + "/kubepods/burstable/podabc"
	if err := tree.Ensure(pod, cgroup.Limits{CPUShares: 512, CPUPeriod: 100000, CPUQuota: 50000, MemoryBytes: 64 << 20}); err != nil {
		t.Skip("cgroups cannot be made here:", err)
	}
	dirs, err := filepath.Glob("/sys/fs/cgroup/*" + pod)
	if err != nil {
		t.Fatal(err)
	}
	if tree.Unified() {
		dirs = []string{"/sys/fs/cgroup" + pod}
	}
	if len(dirs) == 0 {
		t.Fatal("no cgroup was made")
	}
	if !tree.Unified() {
		b, err := os.ReadFile("/sys/fs/cgroup/memory" + pod + "/memory.limit_in_bytes")
		if err == nil && strings.TrimSpace(string(b)) != strconv.Itoa(64<<20) {
			t.Errorf("memory limit %s", b)
		}
	}
	if got := tree.Pods()["abc"]; got != pod {
		t.Errorf("Pods() has %q, want %q", got, pod)
	}
	lost := exec.Command("sleep", "1000")
	if err := lost.Start(); err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if err := os.WriteFile(filepath.Join(d, "cgroup.procs"), []byte(strconv.Itoa(lost.Process.Pid)), 0o600); err != nil {
			t.Log("not moved into", d, err)
		}
	}
	if err := tree.Remove(pod); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("removed a cgroup with a process in it: %v", err)
	}
	if err := tree.Kill(pod); err != nil {
		t.Error(err)
	}
	if err := lost.Wait(); err == nil || lost.ProcessState.ExitCode() != -1 {
		t.Errorf("the process was not killed: %v", err)
	}
	if err := tree.Kill("/somebody-else"); err == nil {
		t.Error("killed outside its root")
	}
	if err := tree.Remove(pod); err != nil {
		t.Error(err)
	}
	for _, d := range dirs {
		if _, err := os.Stat(d); err == nil {
			t.Errorf("%s is left", d)
		}
	}
	if err := tree.Remove("/" + root + "/kubepods"); err != nil {
		t.Error(err)
	}
	if err := tree.Remove("/somebody-else"); err == nil {
		t.Error("removed a cgroup outside its root")
	}
	left, _ := filepath.Glob("/sys/fs/cgroup/*/" + root)
	for _, d := range append(left, "/sys/fs/cgroup/"+root) {
		_ = os.Remove(d)
	}
}
