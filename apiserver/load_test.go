package apiserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"skein.dev/skein/apiserver"
	"skein.dev/skein/raftstore"
	"skein.dev/skein/raftstore/storetest"
)

// loadDir names the directory that a served process shares with its benchmark.
const loadDir = "SKEIN_LOAD_DIR"

// loadProfile names files for profiles of the served process: its CPU in
// $SKEIN_LOAD_PROFILE.cpu, its allocations in $SKEIN_LOAD_PROFILE.allocs.
const loadProfile = "SKEIN_LOAD_PROFILE"

type access struct {
	Addr          string
	CA, Cert, Key []byte
}

// TestServe is the process that BenchmarkServed measures: one API server with
// its log on disk, until its input ends.
func TestServe(t *testing.T) {
	dir := os.Getenv(loadDir)
	if dir == "" {
		t.Skip("this is the far side of BenchmarkServed, which starts it")
	}
	store, err := raftstore.Open(raftstore.Config{Dir: filepath.Join(dir, "raft"), Name: storetest.Peer, Bootstrap: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = store.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		_ = store.Close()
	})
	f := start(t, func(c *apiserver.Config) { c.Store = store })
	a := access{Addr: f.addr, CA: f.ca.pem}
	a.Cert, a.Key = f.ca.issue(t, "kubernetes-admin", "system:masters")
	raw, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "access")
	if err := errors.Join(os.WriteFile(file+".new", raw, 0o600), os.Rename(file+".new", file)); err != nil {
		t.Fatal(err)
	}
	if name := os.Getenv(loadProfile); name != "" {
		profile(t, name)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func profile(t *testing.T, name string) {
	t.Helper()
	cpu, err := os.Create(name + ".cpu")
	if err != nil {
		t.Fatal(err)
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pprof.StopCPUProfile()
		_ = cpu.Close()
		if allocs, err := os.Create(name + ".allocs"); err == nil {
			_ = pprof.Lookup("allocs").WriteTo(allocs, 0)
			_ = allocs.Close()
		}
	})
}

// served is a server in a process of its own, so that its cost can be told
// from its clients'.
type served struct {
	pid    int
	config *rest.Config
}

func serveApart(b *testing.B) *served {
	b.Helper()
	dir := b.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestServe$", "-test.v=false", "-test.timeout=30m")
	cmd.Env = append(os.Environ(), loadDir+"="+dir)
	cmd.Stdout, cmd.Stderr = io.Discard, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			b.Errorf("served process: %v", err)
		}
	})
	var raw []byte
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if raw, err = os.ReadFile(filepath.Join(dir, "access")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			b.Fatal(err)
		}
	}
	var a access
	if err := json.Unmarshal(raw, &a); err != nil {
		b.Fatal(err)
	}
	return &served{pid: cmd.Process.Pid, config: &rest.Config{
		Host: "https://" + a.Addr, QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: a.CA, CertData: a.Cert, KeyData: a.Key},
		ContentConfig:   rest.ContentConfig{ContentType: "application/vnd.kubernetes.protobuf", AcceptContentTypes: "application/vnd.kubernetes.protobuf"},
	}}
}

// cpu is the time that the process has computed.
func (s *served) cpu(b *testing.B) time.Duration {
	b.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	ticks := 0
	for _, f := range fields[11:13] { // utime and stime, in hundredths of a second
		n, err := strconv.Atoi(f)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// drive has so many clients do b.N requests.
func (s *served) drive(b *testing.B, clients int, do func() error) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(b.N))
	took := make([][]time.Duration, clients)
	before := s.cpu(b)
	b.ResetTimer()
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				begin := time.Now()
				if err := do(); err != nil {
					b.Error(err)
					return
				}
				took[c] = append(took[c], time.Since(begin))
			}
		})
	}
	all.Wait()
	b.StopTimer()
	used := s.cpu(b) - before
	times := slices.Concat(took...)
	slices.Sort(times)
	if n := len(times); n > 0 {
		b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "req/s")
		b.ReportMetric(float64(used.Microseconds())/float64(n), "server-µs/req")
		b.ReportMetric(float64(times[n/2].Microseconds()), "p50-µs")
		b.ReportMetric(float64(times[n*99/100].Microseconds()), "p99-µs")
	}
}

// BenchmarkServed measures requests over TLS to a server in another process,
// which fsyncs: run it with -benchtime 20000x or the like.
func BenchmarkServed(b *testing.B) {
	s := serveApart(b)
	c, err := kubernetes.NewForConfig(s.config)
	if err != nil {
		b.Fatal(err)
	}
	maps := c.CoreV1().ConfigMaps("default")
	var n atomic.Int64
	create := func() error {
		_, err := maps.Create(b.Context(), &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: "m" + strconv.FormatInt(n.Add(1), 10)}, Data: payload(b),
		}, metav1.CreateOptions{})
		return err
	}
	for _, clients := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("create/c=%d", clients), func(b *testing.B) { s.drive(b, clients, create) })
	}
	if _, err := maps.Create(b.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "get"}, Data: payload(b)}, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	b.Run("get/c=32", func(b *testing.B) {
		s.drive(b, 32, func() error {
			_, err := maps.Get(b.Context(), "get", metav1.GetOptions{})
			return err
		})
	})
}
