package clients

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

var (
	skein      = flag.String("skein", "", "the skein program")
	helm       = flag.String("helm", "", "the helm program")
	oldKubectl = flag.String("oldkubectl", "", "an older kubectl")
)

// peer is a peer of the test's mesh: an API server with the controllers and
// the scheduler, on loopback, in processes of its own.
type peer struct {
	name       string
	dir        string
	port       int
	kubeconfig string
	config     *rest.Config
	client     *kubernetes.Clientset
}

// mesh is three peers and a hollow node.
type mesh struct {
	*testing.T

	peers []*peer
}

// startMesh starts three peers; they end with the test.
func startMesh(t *testing.T) *mesh {
	t.Helper()
	if *skein == "" {
		t.Skip("-skein names no program; `make clients` does")
	}
	m := &mesh{T: t}
	m.add("up")
	for range 2 {
		token := strings.TrimSpace(m.run(m.peers[0].kubeconfig, "token", "create"))
		m.add("join", "127.0.0.1:"+strconv.Itoa(m.peers[0].port), "--token", token)
	}
	m.hollowNode()
	return m
}

func (m *mesh) add(verb string, args ...string) {
	m.Helper()
	dir, err := os.MkdirTemp("", "sk-") // sockets need a short path
	if err != nil {
		m.Fatal(err)
	}
	p := &peer{name: fmt.Sprintf("p%d", len(m.peers)+1), dir: dir, port: m.port(), kubeconfig: filepath.Join(dir, "kubeconfig.yaml")}
	m.Cleanup(func() {
		if log, err := os.ReadFile(filepath.Join(dir, "data", "skein.log")); m.Failed() && err == nil {
			m.Logf("%s said at last:\n%s", p.name, log[max(0, len(log)-4000):])
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(m.Context()), time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, *skein, "reset", "--yes", "--data-dir", filepath.Join(dir, "data")).CombinedOutput()
		if err != nil {
			m.Errorf("reset %s: %v\n%s", p.name, err, out)
		}
		_ = os.RemoveAll(dir)
	})
	all := append([]string{verb}, args...)
	all = append(all, "--engine", "none", "--detach", "--name", p.name, "--address", "127.0.0.1", "--port", strconv.Itoa(p.port),
		"--node-port", strconv.Itoa(m.port()), "--guard-port", strconv.Itoa(m.port()),
		"--data-dir", filepath.Join(dir, "data"), "--state-dir", filepath.Join(dir, "run"), "--kubeconfig-out", p.kubeconfig)
	m.run("", all...)
	m.peers = append(m.peers, p)
	if p.config, err = clientcmd.BuildConfigFromFlags("", p.kubeconfig); err != nil {
		m.Fatal(err)
	}
	p.config.QPS = -1
	if p.client, err = kubernetes.NewForConfig(p.config); err != nil {
		m.Fatal(err)
	}
}

// stop and start are what an operator does to one peer.
func (m *mesh) stop(p *peer) {
	m.Helper()
	m.run("", "stop", "--data-dir", filepath.Join(p.dir, "data"))
}

func (m *mesh) start(p *peer) {
	m.Helper()
	m.run("", "start", "--detach", "--data-dir", filepath.Join(p.dir, "data"))
}

func (m *mesh) run(kubeconfig string, args ...string) string {
	m.Helper()
	ctx, cancel := context.WithTimeout(m.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, *skein, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		m.Fatalf("skein %s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	return out.String()
}

func (m *mesh) port() int {
	m.Helper()
	l, err := (&net.ListenConfig{}).Listen(m.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		m.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // a TCP listener's
}

// eventually waits for a state and fails the test if it does not come.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 1200 {
		if ok() {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatal("test ended while waiting: " + what)
		case <-time.After(100 * time.Millisecond):
		}
	}
	t.Fatal("never came: " + what)
}
