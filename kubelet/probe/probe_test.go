package probe_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"skein.dev/skein/kubelet/probe"
)

// patient answers exec probes as it is told, by the command's first word.
type patient struct {
	mu    sync.Mutex // guards the fields below
	well  map[string]bool
	asked map[string]int
}

func (p *patient) Exec(_ context.Context, _ string, cmd []string, _ time.Duration) ([]byte, int32, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked[cmd[0]]++
	if p.well[cmd[0]] {
		return nil, 0, nil
	}
	return []byte("no"), 1, nil
}

func (p *patient) set(what string, well bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.well[what] = well
}

func execProbe(name string, edit func(*corev1.Probe)) *corev1.Probe {
	p := &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{name}}},
		PeriodSeconds: 10, FailureThreshold: 3, SuccessThreshold: 1, TimeoutSeconds: 1,
	}
	if edit != nil {
		edit(p)
	}
	return p
}

// watch probes one container and hands control to f, inside a bubble.
func watch(t *testing.T, c *corev1.Container, f func(*patient, *probe.Set)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &patient{well: map[string]bool{}, asked: map[string]int{}}
		s := probe.New(probe.Config{Exec: p, Changed: func() {}, Failed: func(*corev1.Container, probe.Kind, string) {}})
		s.Sync(t.Context(), []probe.Target{{ID: "c", Container: c, Started: time.Now()}})
		f(p, s)
		s.Stop()
	})
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestLivenessNeedsItsFailuresInARow(t *testing.T) {
	watch(t, &corev1.Container{LivenessProbe: execProbe("live", nil)}, func(_ *patient, s *probe.Set) {
		pass(25 * time.Second) // failures at 0, 10, 20 s
		if s.Results()["c"].Unhealthy == "" {
			t.Error("three failures do not count")
		}
	})
	watch(t, &corev1.Container{LivenessProbe: execProbe("live", nil)}, func(p *patient, s *probe.Set) {
		pass(15 * time.Second) // failures at 0 and 10 s
		p.set("live", true)
		pass(10 * time.Second)
		p.set("live", false)
		pass(20 * time.Second) // failures at 30 and 40 s
		if why := s.Results()["c"].Unhealthy; why != "" {
			t.Errorf("two failures, a success and two failures count: %s", why)
		}
	})
}

func TestReadinessFollowsItsThresholds(t *testing.T) {
	c := &corev1.Container{ReadinessProbe: execProbe("ready", func(p *corev1.Probe) { p.SuccessThreshold, p.FailureThreshold = 2, 1 })}
	watch(t, c, func(p *patient, s *probe.Set) {
		p.set("ready", true)
		pass(5 * time.Second)
		if r := s.Results()["c"].Ready; r != nil {
			t.Errorf("ready %v after one success of two", *r)
		}
		pass(10 * time.Second)
		if r := s.Results()["c"].Ready; r == nil || !*r {
			t.Error("not ready after two")
		}
		p.set("ready", false)
		pass(10 * time.Second)
		if r := s.Results()["c"].Ready; r == nil || *r {
			t.Error("still ready after a failure")
		}
	})
}

func TestOthersWaitForTheStartupProbe(t *testing.T) {
	c := &corev1.Container{
		StartupProbe:  execProbe("start", func(p *corev1.Probe) { p.FailureThreshold = 30 }),
		LivenessProbe: execProbe("live", nil),
	}
	watch(t, c, func(p *patient, s *probe.Set) {
		pass(65 * time.Second)
		if n := p.times("live"); n != 0 {
			t.Errorf("liveness was asked %d times before the start", n)
		}
		p.set("start", true)
		p.set("live", true)
		pass(25 * time.Second)
		if st := s.Results()["c"].Started; st == nil || !*st {
			t.Error("not started")
		}
		if p.times("live") == 0 {
			t.Error("liveness was not asked after the start")
		}
	})
}

func TestAStartupThatFailsGivesTheContainerUp(t *testing.T) {
	watch(t, &corev1.Container{StartupProbe: execProbe("start", nil)}, func(_ *patient, s *probe.Set) {
		pass(25 * time.Second)
		if s.Results()["c"].Unhealthy == "" {
			t.Error("not given up")
		}
	})
}

func TestInitialDelay(t *testing.T) {
	c := &corev1.Container{LivenessProbe: execProbe("live", func(p *corev1.Probe) { p.InitialDelaySeconds = 60 })}
	watch(t, c, func(p *patient, _ *probe.Set) {
		pass(59 * time.Second)
		if p.times("live") != 0 {
			t.Error("asked before its delay")
		}
		pass(2 * time.Second)
		if p.times("live") != 1 {
			t.Errorf("asked %d times", p.times("live"))
		}
	})
}

func TestHTTPHandler(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			if r.Header.Get("X-Who") != "me" || !strings.HasPrefix(r.UserAgent(), "kube-probe/") || r.Host != "named.test" {
				w.WriteHeader(http.StatusBadRequest)
			}
		case "/away":
			http.Redirect(w, r, "http://elsewhere.test/", http.StatusFound)
		case "/near":
			http.Redirect(w, r, "/broken", http.StatusFound)
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer srv.Close()
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	c := &corev1.Container{Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: int32(n)}}}
	for path, ok := range map[string]bool{"/ok": true, "/away": true, "/near": false, "/broken": false} {
		a := &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("web"), HTTPHeaders: []corev1.HTTPHeader{{Name: "X-Who", Value: "me"}, {Name: "Host", Value: "named.test"}}}
		if path != "/ok" {
			a.HTTPHeaders = nil
		}
		if err := probe.HTTP(t.Context(), c, "127.0.0.1", a, 10*time.Second); (err == nil) != ok {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := probe.TCP(t.Context(), c, "127.0.0.1", &corev1.TCPSocketAction{Port: intstr.FromInt32(int32(n))}, 10*time.Second); err != nil {
		t.Error(err)
	}
	if _, err := probe.Port(c, intstr.FromString("none")); err == nil {
		t.Error("a port without that name was found")
	}
}

func TestGRPCHandler(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h, srv := health.NewServer(), grpc.NewServer()
	healthpb.RegisterHealthServer(srv, h)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	defer func() {
		srv.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	h.SetServingStatus("sick", healthpb.HealthCheckResponse_NOT_SERVING)
	port := int32(l.Addr().(*net.TCPAddr).Port)
	for _, c := range []struct {
		service string
		ok      bool
	}{{"", true}, {"sick", false}, {"unknown", false}} {
		err := probe.GRPC(t.Context(), "127.0.0.1", &corev1.GRPCAction{Port: port, Service: &c.service}, 10*time.Second)
		if (err == nil) != c.ok {
			t.Errorf("service %q: %v", c.service, fmt.Sprint(err))
		}
	}
}

func (p *patient) times(what string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[what]
}
