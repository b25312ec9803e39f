// Package e2e_test runs a real mesh of three peers on this machine and does
// to it what users and accidents do.
//
// Its invariant: every test starts from a healthy mesh and leaves one.
package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"skein.dev/skein/api/status"
)

// peers are the names the lab gives.
var peers = []string{"p1", "p2", "p3"}

// lab is where the tests' mesh lives; one for all tests of the package.
var lab struct {
	bin, dir, kubeconfig string
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	bin, err := filepath.Abs("../../bin/skein")
	if err != nil {
		panic(err)
	}
	if _, err := os.Stat(bin); err != nil || os.Geteuid() != 0 {
		fmt.Println("tests/e2e needs root and bin/skein, which `make build` makes")
		if os.Getenv("CI") != "" {
			return 1
		}
		return 0
	}
	dir, err := os.MkdirTemp("", "skein-e2e-")
	if err != nil {
		panic(err)
	}
	lab.bin, lab.dir = bin, dir
	defer os.RemoveAll(dir)
	if err := command("lab", "up", "--peers", "3", "--images", "../../build/images").Run(); err != nil {
		fmt.Println("lab up:", err)
		dump()
		return 1
	}
	defer down()
	defer downInTime()()
	out, err := exec.Command(bin, "lab", "kubeconfig", "--lab-dir", dir).Output()
	if err != nil {
		fmt.Println("lab kubeconfig:", err)
		return 1
	}
	lab.kubeconfig = strings.TrimSpace(string(out))
	return m.Run()
}

func down() {
	if err := command("lab", "down").Run(); err != nil {
		fmt.Println("lab down:", err)
	}
}

// downTime is much longer than taking the lab away takes.
const downTime = time.Minute

// downInTime ends the tests a little before their time-out does, which would
// leave the lab on the machine; stop takes that back.
func downInTime() (stop func()) {
	flag.Parse()
	limit, err := time.ParseDuration(flag.Lookup("test.timeout").Value.String())
	if err != nil || limit <= downTime {
		return func() {}
	}
	t := time.AfterFunc(limit-downTime, func() {
		fmt.Println("tests/e2e: no time left but for taking the lab away")
		_ = pprof.Lookup("goroutine").WriteTo(os.Stdout, 2)
		dump()
		down()
		os.Exit(2)
	})
	return func() { t.Stop() }
}

// command is one of skein on the tests' lab, its output shown.
func command(args ...string) *exec.Cmd {
	if args[0] == "lab" {
		args = append([]string{"lab", "--lab-dir", lab.dir}, args[1:]...)
	}
	cmd := exec.Command(lab.bin, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+lab.kubeconfig)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd
}

// dump shows the end of each peer's log.
func dump() {
	logs, _ := filepath.Glob(filepath.Join(lab.dir, "*", "*.log"))
	for _, path := range logs {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		fmt.Printf("--- %s\n%s\n", path, raw[max(0, len(raw)-8000):])
	}
}

// skein runs one command and returns its stdout; it fails the test if the
// command fails.
func skein(t *testing.T, args ...string) string {
	t.Helper()
	out, err := trySkein(args...)
	if err != nil {
		t.Fatalf("skein %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func trySkein(args ...string) (string, error) {
	cmd := command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%w: %s", err, stderr.String())
	}
	return stdout.String(), nil
}

// kubectl runs the real kubectl in the binary.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return skein(t, append([]string{"kubectl"}, args...)...)
}

// eventually waits until ok returns nil, and fails the test with its last
// answer if that takes too long.
func eventually(t *testing.T, what string, limit time.Duration, ok func() error) time.Duration {
	t.Helper()
	begin := time.Now()
	var err error
	for time.Since(begin) < limit {
		if err = ok(); err == nil {
			return time.Since(begin)
		}
		time.Sleep(100 * time.Millisecond)
	}
	dump()
	t.Fatalf("%s: not within %v: %v", what, limit, err)
	return 0
}

// client is a clientset for one peer, by its context in the lab's kubeconfig.
func client(t *testing.T, peer string) *kubernetes.Clientset {
	t.Helper()
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: lab.kubeconfig},
		&clientcmd.ConfigOverrides{CurrentContext: peer}).ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS = -1
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// meshStatus is what one peer says of the mesh.
func meshStatus(ctx context.Context, c *kubernetes.Clientset) (*status.Mesh, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	raw, err := c.Discovery().RESTClient().Get().AbsPath(status.Path).DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	var m status.Mesh
	return &m, json.Unmarshal(raw, &m)
}

// healthy waits until every peer sees three live, Ready peers and a leader.
func healthy(t *testing.T) {
	t.Helper()
	for _, name := range peers {
		c := client(t, name)
		eventually(t, "healthy mesh as seen by "+name, 90*time.Second, func() error {
			m, err := meshStatus(context.Background(), c) // also used after the test's end
			if err != nil {
				return err
			}
			if !m.Quorum || m.Leaders.Store == "" || m.Leaders.Scheduler == "" || m.Leaders.Controllers == "" {
				return fmt.Errorf("quorum %t, leaders %+v", m.Quorum, m.Leaders)
			}
			for _, want := range peers {
				if err := wellOff(m, want); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func wellOff(m *status.Mesh, name string) error {
	for _, p := range m.Peers {
		if p.Name != name {
			continue
		}
		if p.Health != "Alive" || !p.Ready || (p.Raft != "leader" && p.Raft != "voter") {
			return fmt.Errorf("peer %s: %+v", name, p)
		}
		return nil
	}
	return fmt.Errorf("peer %s is unknown", name)
}

// others are all peers but one.
func others(name string) []string {
	var out []string
	for _, p := range peers {
		if p != name {
			out = append(out, p)
		}
	}
	return out
}
