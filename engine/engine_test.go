package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skein.dev/skein/engine"
	"skein.dev/skein/engine/programs"
)

// node is a machine for one engine: namespaces of its own, a network plugin
// and a cgroup.
type node struct {
	engine *engine.Engine
	holder int // the process whose namespaces are the node's
	cgroup string
	log    *os.File
	ctd    *exec.Cmd
}

func newNode(t *testing.T) *node {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("containers need root")
	}
	if _, err := programs.Read(programs.Runc); errors.Is(err, programs.ErrNotBuilt) {
		t.Skip("no static programs; run: make programs")
	}
	dir, err := os.MkdirTemp("/tmp", "sk-eng-") //nolint:usetesting // t.TempDir is too long a path for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	n := &node{cgroup: fmt.Sprintf("/skein-engine-test-%d", os.Getpid())}
	t.Cleanup(func() { n.removeCgroups(t) })
	n.engine, err = engine.New(engine.Config{
		DataDir: filepath.Join(dir, "data"), StateDir: filepath.Join(dir, "s"),
		CNIBinDirs: []string{filepath.Join(dir, "cni")},
	})
	must(t, err)
	must(t, n.engine.Prepare(t.Context()))
	self, err := os.Executable()
	must(t, err)
	must(t, os.Mkdir(filepath.Join(dir, "cni"), 0o755))
	must(t, os.Symlink(self, filepath.Join(dir, "cni", testPlugin)))
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"test","plugins":[{"type":%q}]}`, testPlugin)
	must(t, os.WriteFile(filepath.Join(n.engine.CNIConfDir(), "10-test.conflist"), []byte(conf), 0o600))
	n.log, err = os.Create(filepath.Join(dir, "containerd.log"))
	must(t, err)
	t.Cleanup(func() { n.showLog(t) })
	n.hold(t, self)
	return n
}

// hold makes the node's network and mount namespaces.
func (n *node) hold(t *testing.T, self string) {
	t.Helper()
	cmd := exec.Command(self)
	cmd.Args = []string{"holder"}
	cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	stdin, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	n.holder = cmd.Process.Pid
	t.Cleanup(func() {
		must(t, stdin.Close())
		must(t, cmd.Wait())
	})
}

func (n *node) start(t *testing.T) {
	t.Helper()
	p := n.engine.Process()
	n.ctd = exec.Command("/proc/self/exe")
	n.ctd.Args = append([]string{"enter", strconv.Itoa(n.holder), p.Path}, p.Argv...)
	n.ctd.Env = p.Env
	n.ctd.Stdout, n.ctd.Stderr = n.log, n.log
	must(t, n.ctd.Start())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := n.engine.Ready(ctx); err != nil {
		t.Fatalf("engine is not ready: %v", err)
	}
}

func (n *node) stop(t *testing.T, sig os.Signal) {
	t.Helper()
	must(t, n.ctd.Process.Signal(sig))
	err := n.ctd.Wait()
	if exited := (&exec.ExitError{}); err != nil && !errors.As(err, &exited) {
		t.Fatal(err)
	}
}

func (n *node) showLog(t *testing.T) {
	t.Helper()
	if t.Failed() {
		b, err := os.ReadFile(n.log.Name())
		t.Logf("containerd's log (%v):\n%s", err, b)
	}
	must(t, n.log.Close())
}

// removeCgroups removes what containerd leaves: the pods' parents.
func (n *node) removeCgroups(t *testing.T) {
	t.Helper()
	dirs, err := filepath.Glob("/sys/fs/cgroup/*" + n.cgroup)
	must(t, err)
	for _, dir := range append(dirs, "/sys/fs/cgroup"+n.cgroup) {
		removeTree(t, dir)
	}
}

// removeTree removes a cgroup and those below it; their files go by themselves.
func removeTree(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	must(t, err)
	for _, e := range entries {
		if e.IsDir() {
			removeTree(t, filepath.Join(dir, e.Name()))
		}
	}
	must(t, os.Remove(dir))
}

func (n *node) cri(t *testing.T) runtimeapi.RuntimeServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(n.engine.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { must(t, conn.Close()) })
	return runtimeapi.NewRuntimeServiceClient(conn)
}

// runPod runs a pod of one container that waits, and returns their ids.
func (n *node) runPod(t *testing.T, name string) (sandbox, container string) {
	t.Helper()
	cri := n.cri(t)
	pid := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	seccomp := &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	pod := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Uid: name, Namespace: "default"},
		Hostname: name,
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent:    n.cgroup + "/" + name,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: pid, Seccomp: seccomp},
		},
	}
	run, err := cri.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: pod})
	must(t, err)
	t.Cleanup(func() { n.removePod(t, run.PodSandboxId) })
	made, err := cri.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{
		PodSandboxId: run.PodSandboxId, SandboxConfig: pod,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "main"},
			Image:    &runtimeapi.ImageSpec{Image: engine.PauseImage},
			Linux: &runtimeapi.LinuxContainerConfig{
				Resources:       &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 32 << 20, CpuShares: 102},
				SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: pid, Seccomp: seccomp},
			},
		},
	})
	must(t, err)
	_, err = cri.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: made.ContainerId})
	must(t, err)
	return run.PodSandboxId, made.ContainerId
}

func (n *node) removePod(t *testing.T, sandbox string) {
	t.Helper()
	cri, ctx := n.cri(t), context.Background() // t's context is over in a cleanup
	_, err := cri.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: sandbox})
	must(t, err)
	_, err = cri.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandbox})
	must(t, err)
}

// life is what must not change while containerd restarts.
type life struct {
	address string
	state   runtimeapi.ContainerState
	started int64
}

func (n *node) life(t *testing.T, sandbox, container string) life {
	t.Helper()
	cri := n.cri(t)
	p, err := cri.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: sandbox})
	must(t, err)
	c, err := cri.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: container})
	must(t, err)
	return life{p.Status.GetNetwork().GetIp(), c.Status.State, c.Status.StartedAt}
}

func TestPodsOutliveARestartOfContainerd(t *testing.T) {
	n := newNode(t)
	n.start(t)
	t.Cleanup(func() { n.stop(t, unix.SIGTERM) })
	type pod struct{ sandbox, container string }
	before := map[pod]life{}
	for i := range 3 {
		sandbox, container := n.runPod(t, fmt.Sprintf("pod-%d", i))
		p := pod{sandbox, container}
		before[p] = n.life(t, sandbox, container)
		if got := before[p]; got.address != podAddress || got.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
			t.Fatalf("pod %d: got %+v, want it running with address %s", i, got, podAddress)
		}
	}
	for _, sig := range []os.Signal{unix.SIGTERM, unix.SIGKILL} {
		n.stop(t, sig)
		n.start(t)
		for p, want := range before {
			if got := n.life(t, p.sandbox, p.container); got != want {
				t.Errorf("after %v: got %+v, want %+v", sig, got, want)
			}
		}
	}
}

func TestImportedImagesAreSeenAtOnce(t *testing.T) {
	n := newNode(t)
	n.start(t)
	t.Cleanup(func() { n.stop(t, unix.SIGTERM) })
	names, err := n.engine.Import(t.Context(), bytes.NewReader(archive(t, "skein.dev/test/one:1")))
	must(t, err)
	if want := "skein.dev/test/one:1"; len(names) != 1 || names[0] != want {
		t.Fatalf("imported names: got %q, want %q", names, want)
	}
	images, err := n.engine.List(t.Context())
	must(t, err)
	var got []string
	for _, i := range images {
		got = append(got, i.Names...)
	}
	if want := []string{engine.PauseImage, "skein.dev/test/one:1"}; strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("images: got %q, want %q", got, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
