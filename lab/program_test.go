package lab_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"skein.dev/skein/lab"
)

// dialLimit is how long a peer tries to reach another: what is cut off stays
// silent for as long, so it is short; what is not answers in microseconds.
const dialLimit = 2 * time.Second

// The test binary is also the program that the lab runs: a tiny server with
// the manners of a peer. Its first argument says what it is to do.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		if err := program(os.Args[1], os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "program:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func program(verb string, args []string) error {
	switch verb {
	case "forward":
		return lab.Forward(context.Background(), args[0])
	case "up", "start":
		return startServer(verb, args)
	case "join":
		if args[4] != "tok" {
			return fmt.Errorf("wrong token %q", args[4])
		}
		return startServer(verb, args)
	case "token":
		fmt.Println("tok")
		return nil
	case "stop":
		pid, err := os.ReadFile(filepath.Join(args[0], "pid"))
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(pid))
		if err != nil {
			return err
		}
		return syscall.Kill(n, syscall.SIGKILL)
	case "serve":
		return serve(args[0], args[2], args[3])
	case "child":
		signal.Ignore(syscall.SIGTERM)
		select {}
	}
	return fmt.Errorf("unknown verb %q", verb)
}

// startServer leaves a server behind and returns when the peer is "ready".
func startServer(verb string, args []string) error {
	name, addr, dir := args[0], args[1], args[2]
	if _, err := os.Stat(filepath.Join(filepath.Dir(dir), "block-"+name)); err == nil {
		return errors.New("blocked by the test")
	}
	if answers(addr) {
		return errors.New("it runs already")
	}
	if err := os.MkdirAll(filepath.Join(dir, "run", "mnt"), 0o700); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, append([]string{"serve"}, args[:4]...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "pid"), fmt.Append(nil, cmd.Process.Pid), 0o600); err != nil {
		return err
	}
	others := []string{addr}
	if verb == "start" { // it needs one more to be ready
		others = nil
		for i := range 3 {
			if a := fmt.Sprintf("198.18.0.%d", 11+i); a != addr {
				others = append(others, a)
			}
		}
	}
	for range 3000 {
		if answers(addr) && anyAnswers(others) {
			return writeKubeconfig(filepath.Join(dir, "kubeconfig.yaml"), addr)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("not ready")
}

func anyAnswers(addrs []string) bool {
	return slices.ContainsFunc(addrs, answers)
}

func answers(addr string) bool {
	c, err := net.DialTimeout("tcp", addr+":6443", 5*time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

func writeKubeconfig(path, addr string) error {
	c := clientcmdapi.NewConfig()
	c.Clusters["c"] = &clientcmdapi.Cluster{Server: "https://" + addr + ":6443", CertificateAuthorityData: []byte("ca")}
	c.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: "t"}
	c.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	c.CurrentContext = "x"
	return clientcmd.WriteToFile(*c, path)
}

// serve is a peer: it mounts, has a child in a cgroup of its own that ignores
// SIGTERM, and answers questions on its two ports.
func serve(name, dir, cgroup string) error {
	mnt := filepath.Join(dir, "run", "mnt")
	if err := unix.Mount("tmpfs", mnt, "tmpfs", 0, ""); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(mnt, "mounted"), []byte("yes\n"), 0o600); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	child := exec.Command(self, "child", dir)
	if err := child.Start(); err != nil {
		return err
	}
	go child.Wait() //nolint:errcheck // it is killed
	groups, err := filepath.Glob("/sys/fs/cgroup/*" + cgroup)
	if err != nil {
		return err
	}
	for _, g := range groups {
		if strings.Contains(g, "cpuset") {
			continue
		}
		if err := os.MkdirAll(filepath.Join(g, "child"), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(g, "child", "cgroup.procs"), fmt.Append(nil, child.Process.Pid), 0); err != nil {
			return err
		}
	}
	node, err := net.Listen("tcp", ":10250")
	if err != nil {
		return err
	}
	go answer(node, name+" node")
	api, err := net.Listen("tcp", ":6443")
	if err != nil {
		return err
	}
	answer(api, name)
	return nil
}

func answer(ln net.Listener, name string) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			line, err := bufio.NewReader(c).ReadString('\n')
			if err != nil {
				return
			}
			line = strings.TrimSpace(line)
			if to, ok := strings.CutPrefix(line, "dial "); ok {
				name, err := whoIs(to+":6443", "who", dialLimit)
				if err != nil {
					name = "error: " + err.Error()
				}
				fmt.Fprintln(c, name)
				return
			}
			fmt.Fprintln(c, name)
		}()
	}
}

func whoIs(addr, question string, limit time.Duration) (string, error) {
	c, err := net.DialTimeout("tcp", addr, limit)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(limit))
	if _, err := fmt.Fprintln(c, question); err != nil {
		return "", err
	}
	data, err := io.ReadAll(c)
	return strings.TrimSpace(string(data)), err
}

func ask(t *testing.T, port int, question string) string {
	t.Helper()
	got, err := whoIs(fmt.Sprintf("127.0.0.1:%d", port), question, 10*time.Second)
	if err != nil {
		t.Fatalf("ask port %d: %v", port, err)
	}
	return got
}

type commands struct{ self string }

func (c commands) peer(verb string, p lab.Peer, more ...string) []string {
	return append([]string{c.self, verb, p.Name, p.Address.String(), p.Dir, p.Cgroup}, more...)
}

func (c commands) First(p lab.Peer) []string { return c.peer("up", p) }
func (c commands) Token(lab.Peer) []string   { return []string{c.self, "token"} }
func (c commands) Join(p, _ lab.Peer, token string) []string {
	return c.peer("join", p, token)
}
func (c commands) Start(p lab.Peer) []string { return c.peer("start", p) }
func (c commands) Stop(p lab.Peer) []string  { return []string{c.self, "stop", p.Dir} }
func (c commands) Import(p lab.Peer, file string) []string {
	return []string{"cp", file, p.Dir}
}

func newLab(t *testing.T) *lab.Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes namespaces and cgroups")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "lab")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(lab.Config{
		Dir: dir, Commands: commands{self}, Forwarder: []string{self, "forward", dir}, Out: testWriter{t},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Errorf("down: %v", err)
		}
	})
	dirs[t.Name()] = dir
	return l
}

// dirs remembers each test's lab directory; tests do not run in parallel.
var dirs = map[string]string{}

func dirOf(t *testing.T, _ *lab.Lab) string { t.Helper(); return dirs[t.Name()] }

func labName(dir string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(dir))
	return fmt.Sprintf("skein-lab-%08x", h.Sum32())
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func up(t *testing.T, l *lab.Lab, peers int) {
	t.Helper()
	if err := l.Up(t.Context(), lab.Mesh{Peers: peers}); err != nil {
		t.Fatal(err)
	}
}

func status(t *testing.T, l *lab.Lab) lab.Status {
	t.Helper()
	s, err := l.Status()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func cmpStatus() cmp.Option {
	return cmp.Options{cmpopts.EquateComparable(lab.Peer{}.Address)}
}
