package lab_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"skein.dev/skein/lab"
)

func TestLabRunsPeersInNamespacesOfTheirOwn(t *testing.T) {
	l := newLab(t)
	up(t, l, 3)
	st := status(t, l)
	for _, p := range st.Peers {
		if got := ask(t, p.API, "who"); got != p.Name {
			t.Errorf("the API port of %s leads to %q", p.Name, got)
		}
		if got := ask(t, p.Node, "who"); got != p.Name+" node" {
			t.Errorf("the node port of %s leads to %q", p.Name, got)
		}
		for _, q := range st.Peers {
			if got := ask(t, p.API, "dial "+q.Address.String()); got != q.Name {
				t.Errorf("%s reaches %s as %q", p.Name, q.Name, got)
			}
		}
		if got := ask(t, p.API, "dial 192.0.2.1"); !strings.HasPrefix(got, "error") {
			t.Errorf("%s reaches the world: %q", p.Name, got)
		}
	}
	if got := ask(t, st.Any, "who"); got != "p1" {
		t.Errorf("the common port leads to %q", got)
	}
	if err := l.Up(t.Context(), lab.Mesh{Peers: 3}); err != nil {
		t.Errorf("a second up: %v", err)
	}
	if diff := cmp.Diff(st, status(t, l), cmpStatus()); diff != "" {
		t.Errorf("a second up changed the lab:\n%s", diff)
	}
}

func TestKilledPeerLosesEveryProcessAndStartsAgain(t *testing.T) {
	l := newLab(t)
	up(t, l, 3)
	if err := l.Kill(t.Context(), "p1", ""); err != nil {
		t.Fatal(err)
	}
	st := status(t, l)
	if st.Peers[0].Processes != 0 || st.Peers[1].Processes == 0 {
		t.Fatalf("processes: %d of p1, %d of p2", st.Peers[0].Processes, st.Peers[1].Processes)
	}
	if got := ask(t, st.Any, "who"); got != "p2" {
		t.Errorf("without p1 the common port leads to %q", got)
	}
	if err := l.Kill(t.Context(), "p1", ""); !errors.Is(err, lab.ErrStopped) {
		t.Errorf("killing it again: %v", err)
	}
	if _, err := os.Stat(filepath.Join(st.Peers[0].StateDir(), "mnt", "mounted")); err == nil {
		t.Error("a mount of the peer was visible outside or outlived it")
	}
	if err := l.Start(t.Context(), "p1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Start(t.Context(), "p1"); err == nil || !strings.Contains(err.Error(), "it runs already") {
		t.Errorf("starting it again: %v", err)
	}
	if got := ask(t, st.Peers[0].API, "who"); got != "p1" {
		t.Errorf("after its start p1 is %q", got)
	}
}

func TestKillOfAPartLeavesTheRestAlone(t *testing.T) {
	l := newLab(t)
	up(t, l, 1)
	before := status(t, l).Peers[0].Processes
	if err := l.Kill(t.Context(), "p1", "child"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the part to be gone", func() bool { return status(t, l).Peers[0].Processes == before-1 })
	if got := ask(t, status(t, l).Peers[0].API, "who"); got != "p1" {
		t.Errorf("the rest answers %q", got)
	}
	if err := l.Kill(t.Context(), "p1", "../.."); err == nil {
		t.Error("a cgroup outside the peer's was accepted")
	}
}

func TestStoppedPeerLeavesItsContainersAndFindsThemAgain(t *testing.T) {
	l := newLab(t)
	up(t, l, 3)
	if err := l.Stop(t.Context(), "p2"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the server to be gone", func() bool { return status(t, l).Peers[1].Processes == 1 })
	if err := l.Start(t.Context(), "p2"); err != nil {
		t.Fatal(err)
	}
	// The mount is still that of the first start: the old child keeps its namespace.
	var out bytes.Buffer
	if err := l.Exec(t.Context(), "p2", []string{"sh", "-c", "grep -c /p2/run/mnt /proc/self/mountinfo"}, nil, &out, os.Stderr); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(out.String()); got != "2" {
		t.Errorf("%s mounts are there, want that of each start", got)
	}
	if err := l.Kill(t.Context(), "p2", ""); err != nil {
		t.Fatal(err)
	}
	if err := l.Stop(t.Context(), "p2"); !errors.Is(err, lab.ErrStopped) {
		t.Errorf("stopping what is off: %v", err)
	}
}

func TestPowerCutOfAllPeersIsSurvivedOneStartAtATime(t *testing.T) {
	l := newLab(t)
	up(t, l, 3)
	for _, p := range []string{"p1", "p2", "p3"} {
		if err := l.Kill(t.Context(), p, ""); err != nil {
			t.Fatal(err)
		}
	}
	// The program's start ends only when another peer answers, as readiness needs a quorum.
	for _, p := range []string{"p1", "p2", "p3"} {
		if err := l.Start(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range status(t, l).Peers {
		if got := ask(t, p.API, "who"); got != p.Name {
			t.Errorf("%s is %q", p.Name, got)
		}
	}
}

func TestCutSeparatesAndHealJoins(t *testing.T) {
	l := newLab(t)
	up(t, l, 4)
	st := status(t, l)
	reaches := func(a, b int) bool {
		t.Helper()
		return ask(t, st.Peers[a].API, "dial "+st.Peers[b].Address.String()) == st.Peers[b].Name
	}
	if err := l.Cut(t.Context(), "p1", "p2"); err != nil {
		t.Fatal(err)
	}
	for a := range 4 {
		for b := range 4 {
			if got, want := reaches(a, b), (a < 2) == (b < 2); got != want {
				t.Errorf("cut: p%d reaches p%d: %v, want %v", a+1, b+1, got, want)
			}
		}
	}
	if got := ask(t, st.Peers[0].API, "who"); got != "p1" {
		t.Errorf("a cut peer is not reached from the machine: %q", got)
	}
	if got := ask(t, st.Any, "who"); got != "p3" {
		t.Errorf("the common port leads to %q, which is cut off", got)
	}
	if err := l.Cut(t.Context(), "p3", "p9"); !errors.Is(err, lab.ErrNoPeer) {
		t.Errorf("cutting nobody: %v", err)
	}
	if err := l.Cut(t.Context(), "p1", "p2", "p3", "p4"); err == nil {
		t.Error("all peers were cut off from nobody")
	}
	if err := l.Heal(t.Context()); err != nil {
		t.Fatal(err)
	}
	for a := range 4 {
		for b := range 4 {
			if !reaches(a, b) {
				t.Errorf("healed: p%d does not reach p%d", a+1, b+1)
			}
		}
	}
}

func TestExecSeesThePeersWorld(t *testing.T) {
	l := newLab(t)
	up(t, l, 2)
	var out bytes.Buffer
	err := l.Exec(t.Context(), "p2", []string{"sh", "-c", "ip -4 -o addr show eth0; cat $0/run/mnt/mounted; cat; exit 7", status(t, l).Peers[1].Dir},
		strings.NewReader("from stdin"), &out, os.Stderr)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("got %v, want exit code 7", err)
	}
	for _, want := range []string{"198.18.0.12/24", "yes", "from stdin"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, out.String())
		}
	}
	if err := l.Exec(t.Context(), "p9", []string{"true"}, nil, nil, nil); !errors.Is(err, lab.ErrNoPeer) {
		t.Errorf("on no peer: %v", err)
	}
}

func TestKubeconfigLeadsToEachPeerAndToAny(t *testing.T) {
	l := newLab(t)
	up(t, l, 2)
	path, err := l.Kubeconfig()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	st := status(t, l)
	for _, want := range []string{
		"current-context: lab", "name: p1", "name: p2", "https://127.0.0.1:" + strconv.Itoa(st.Any),
		"https://127.0.0.1:" + strconv.Itoa(st.Peers[1].API),
	} {
		if !strings.Contains(string(data), want) {
			t.Errorf("kubeconfig lacks %q:\n%s", want, data)
		}
	}
}

func TestFailedPeerStopsUpWithItsReasonAndUpGoesOn(t *testing.T) {
	l := newLab(t)
	blocked := filepath.Join(dirOf(t, l), "block-p2")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := l.Up(t.Context(), lab.Mesh{Peers: 2})
	if err == nil || !strings.Contains(err.Error(), "p2") || !strings.Contains(err.Error(), "blocked by the test") {
		t.Fatalf("got %v", err)
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	up(t, l, 2)
}

func TestDownLeavesNothing(t *testing.T) {
	before := world(t)
	l := newLab(t)
	up(t, l, 3)
	dir := dirOf(t, l)
	if diff := cmp.Diff(before, world(t)); diff != "" {
		t.Errorf("the lab touched the machine's network (-before +with lab):\n%s", diff)
	}
	if err := l.Cut(t.Context(), "p2"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to do
		if err := l.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(before, world(t)); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
	if _, err := l.Status(); !errors.Is(err, lab.ErrNoLab) {
		t.Errorf("status: %v", err)
	}
	if err := l.Kill(t.Context(), "p1", ""); !errors.Is(err, lab.ErrNoLab) {
		t.Errorf("kill: %v", err)
	}
	if err := l.Heal(t.Context()); !errors.Is(err, lab.ErrNoLab) {
		t.Errorf("heal: %v", err)
	}
	mustBeGone(t, dir)
}

func TestDownNeedsNoStateFile(t *testing.T) {
	l := newLab(t)
	up(t, l, 2)
	dir := dirOf(t, l)
	if err := os.WriteFile(filepath.Join(dir, "lab.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Status(); err == nil {
		t.Error("a damaged state was accepted")
	}
	if err := l.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustBeGone(t, dir)
}

func TestDownEndsWhoeverIsInItsNamespaces(t *testing.T) {
	l := newLab(t)
	up(t, l, 1)
	stray := exec.Command("nsenter", "--net="+filepath.Join(dirOf(t, l), "ns", "p1"), "sleep", "1000")
	if err := stray.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- stray.Wait() }()
	waitFor(t, "the stray to enter", func() bool {
		mine, err := os.Readlink("/proc/self/ns/net")
		its, err2 := os.Readlink("/proc/" + strconv.Itoa(stray.Process.Pid) + "/ns/net")
		return err == nil && err2 == nil && mine != its
	})
	if err := l.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("the stray ended well")
	}
}

// mustBeGone fails if a process, mount, cgroup or file of the lab is left.
func mustBeGone(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(dir); err == nil {
		t.Error("the directory is left")
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Error("a mount is left")
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*/skein-lab-*")
	if err != nil {
		t.Fatal(err)
	}
	groups = slices.DeleteFunc(groups, func(g string) bool { return !strings.HasSuffix(g, labName(dir)) })
	if len(groups) > 0 {
		t.Errorf("cgroups are left: %v", groups)
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lines {
		if data, err := os.ReadFile(path); err == nil && strings.Contains(string(data), dir) {
			t.Errorf("a process is left: %s", bytes.ReplaceAll(data, []byte{0}, []byte{' '}))
		}
	}
}

// world is what the machine's own network looks like.
func world(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, c := range []string{"ip -o link", "ip -o addr", "ip route show table all", "ip rule", "nft list ruleset"} {
		data, err := exec.CommandContext(t.Context(), "sh", "-c", c).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", c, err, data)
		}
		out.WriteString(c + "\n" + string(data))
	}
	return out.String()
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}
