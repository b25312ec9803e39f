//go:build linux && vm

package vm_test

import (
	"context"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"skein.dev/skein/tests/vm"
)

// modules are what Debian loads by itself when skein asks for it: the guest
// has no modprobe.
func modules() []string {
	return []string{
		"overlay", "veth", "bridge", "vxlan", "dummy",
		"crc32c_generic", "libcrc32c", "nf_conntrack", "nf_conntrack_netlink", "nf_tables", "nft_chain_nat", "nft_nat",
		"nft_masq", "nft_ct", "nft_numgen", "nft_hash", "nft_reject", "nft_reject_inet", "nft_reject_ipv4", "nft_reject_ipv6", "nft_fib", "nft_fib_inet",
		"nft_redir", "nft_limit", "nft_objref", "nft_log", "nft_socket",
	}
}

// root is the root of the module.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = root(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// newGuest is a guest with an init, a busybox and the modules; the rest is
// the test's.
func newGuest(t *testing.T) *vm.Guest {
	t.Helper()
	command(t, "provision/deps.sh", "vm")
	kernel, err := vm.FetchKernel(t.Context(), filepath.Join(root(t), "build", "vm"))
	if err != nil {
		t.Fatal(err)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	initProgram := filepath.Join(dir, "init")
	command(t, "go", "build", "-ldflags", "-s -w", "-o", initProgram, "./tests/vm/init")
	return &vm.Guest{Kernel: kernel, Modules: modules(), Init: initProgram, Busybox: busybox, Dir: dir, Console: console{t}}
}

// console shows what a guest writes as it comes.
type console struct{ t *testing.T }

func (c console) Write(b []byte) (int, error) { return c.t.Output().Write(b) }

// need fails the test when what `make` builds first is missing.
func need(t *testing.T, path string) string {
	t.Helper()
	path = filepath.Join(root(t), path)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v; run: make build images", err)
	}
	return path
}

// program is the skein to test: $SKEIN_BINARY, or what `make build` made. The
// guest has no loader, as a minimal system has none of the right kind.
func program(t *testing.T) string {
	t.Helper()
	path := os.Getenv("SKEIN_BINARY")
	if path == "" {
		path = need(t, "bin/skein")
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if libs, err := f.ImportedLibraries(); err != nil || len(libs) > 0 {
		t.Fatalf("%s is not static: it needs %v (%v); run: make build", path, libs, err)
	}
	return path
}

func boot(t *testing.T, g *vm.Guest) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := g.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// The tests of engine and guard, which need a real kernel, run in the guest as
// they are: on cgroup v2 and with every capability.
func TestVMEngineAndGuardOnCgroupV2(t *testing.T) {
	g := newGuest(t)
	need(t, "engine/programs/bin/runc.gz")
	for _, pkg := range []string{"engine", "guard"} {
		command(t, "go", "test", "-c", "-ldflags", "-s -w", "-o", filepath.Join(g.Dir, pkg+".test"), "./"+pkg)
	}
	g.Fill = func(r *vm.Tree) {
		for _, pkg := range []string{"engine", "guard"} {
			r.File("tests/"+pkg+".test", filepath.Join(g.Dir, pkg+".test"))
		}
	}
	g.Steps = []vm.Step{
		{Name: "cgroup v2", Script: "cat /sys/fs/cgroup/cgroup.controllers; grep cgroup2 /proc/mounts"},
		{Name: "loopback", Script: "ip link set lo up"},
		{Name: "engine", Script: "cd /tests; ./engine.test -test.v -test.timeout 4m"},
		{Name: "guard", Script: "cd /tests; ./guard.test -test.v -test.timeout 4m"},
	}
	boot(t, g)
}

// One peer, the ordinary program, runs the hello example on a fresh system
// with cgroup v2, and its pods outlive a restart of the peer.
func TestVMPeerRunsAnApplicationOnCgroupV2(t *testing.T) {
	g := newGuest(t)
	g.Memory, g.Within = 3072, 15*time.Minute
	skein := program(t)
	g.Fill = func(r *vm.Tree) {
		r.File("bin/skein", skein)
		for _, image := range []string{"hello", "busybox"} {
			r.File("images/"+image+".tar", need(t, "build/images/"+image+".tar"))
		}
		manifests, err := filepath.Glob(filepath.Join(root(t), "examples", "hello", "*.yaml"))
		if err != nil || len(manifests) == 0 {
			t.Fatalf("no manifests: %v", err)
		}
		for _, m := range manifests {
			r.File("hello/"+filepath.Base(m), m)
		}
	}
	const containerID = "skein get pod client -o jsonpath='{.status.containerStatuses[0].containerID}'"
	g.Steps = []vm.Step{
		{Name: "network", Script: "ip link set lo up; ip link add eth0 type dummy; ip addr add 10.77.0.1/24 dev eth0; " +
			"ip link set eth0 up; ip route add default via 10.77.0.254"},
		{Name: "up", Script: "skein up --detach --name guest --address 10.77.0.1; skein get nodes -o wide | tee /dev/stderr | grep -q 'containerd://2[0-9.]* *$'; skein status; head -c 3000 /var/lib/skein/skein.log"},
		{Name: "images", Script: "skein image import /images/*.tar; skein image list"},
		{Name: "apply", Script: "skein apply -f /hello; skein rollout status deployment/hello --timeout=4m; " +
			"date +%s; skein get pods; skein wait --for=condition=Ready pod/client --timeout=2m || { date +%s; skein get pods -o wide; cat /proc/uptime; false; }; skein get pods -o wide"},
		// Three pods, each with a group of its own and one for its container.
		{Name: "limits are in cgroup v2", Script: "limited=$(find /sys/fs/cgroup -name memory.max | xargs grep -lx 33554432); echo \"$limited\"; " +
			"[ $(echo \"$limited\" | grep -c kubepods/burstable) -eq 6 ]"},
		{Name: "service by name", Script: "skein exec client -- wget -qO- http://hello.default.svc.cluster.local | grep '^hello-'"},
		{Name: "logs", Script: "skein logs deployment/hello | grep listening"},
		{Name: "restart", Script: "before=$(" + containerID + "); skein stop; skein start --detach; " +
			"skein wait --for=condition=Ready pod/client --timeout=2m; after=$(" + containerID + "); " +
			"echo \"container before $before, after $after\"; [ -n \"$before\" ]; [ \"$before\" = \"$after\" ]"},
		{Name: "reset", Script: "ps | grep -c '[c]ontainerd-shim'; skein reset --yes; if ps | grep '[c]ontainerd'; then false; fi; [ ! -e /sys/fs/cgroup/skein ]"},
		{Name: "what was said", Always: true, Script: "for f in guard skein containerd; do echo \"== $f.log\"; " +
			"tail -n 40 /var/lib/skein/$f.log 2>/dev/null | cut -c1-600 || true; done; skein get events -A | tail -n 40; free -m"},
	}
	boot(t, g)
}

// A kernel without what a peer needs is told so in one line for each, and
// nothing is made.
func TestVMAKernelWithoutWhatAPeerNeedsIsRefused(t *testing.T) {
	g := newGuest(t)
	skein := program(t)
	g.Modules = nil
	g.Fill = func(r *vm.Tree) { r.File("bin/skein", skein) }
	g.Steps = []vm.Step{
		{Name: "up", Script: "ip link set lo up; if skein up --detach --name guest --address 127.0.0.1 2>said; then false; fi; cat said; " +
			"for m in overlay nf_tables veth vxlan; do grep -q \"modprobe $m\" said; done; [ $(grep -c ^skein: said) = 1 ]; [ ! -e /var/lib/skein ]"},
	}
	boot(t, g)
}
