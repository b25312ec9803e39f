// Package server is the node API: what the API server and monitors ask of a
// node on port 10250.
//
// Its invariant: nothing but /healthz is answered before the caller has been
// authorized.
package server

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"skein.dev/skein/kubelet/cri"
	"skein.dev/skein/kubelet/lifecycle"
)

// Pods is the kubelet, as the node API needs it.
type Pods interface {
	// List returns this node's pods with their present status.
	List() []*corev1.Pod
	// Find returns a pod by name; uid may be empty.
	Find(namespace, name string, uid types.UID) (*corev1.Pod, error)
	// Held returns what the runtime holds of a pod, newest first.
	Held(ctx context.Context, uid types.UID) ([]lifecycle.Sandbox, []lifecycle.Container, error)
}

// Config of a [Server].
type Config struct {
	Listen    string
	TLS       *tls.Config
	Authorize func(*http.Request) error
	Runtime   *cri.Client
	Pods      Pods
	NodeName  string
	// RootDir is on the file system that pods' files are on.
	RootDir string
	Log     *slog.Logger
}

// Server is the node API.
type Server struct {
	cfg     Config
	started time.Time
	metrics http.Handler
}

// New checks cfg. A nil Authorize refuses every request.
func New(cfg Config) (*Server, error) {
	if cfg.TLS == nil || cfg.Runtime == nil || cfg.Pods == nil {
		return nil, errors.New("node API: TLS, runtime and pods are required")
	}
	if cfg.Authorize == nil {
		cfg.Authorize = func(*http.Request) error { return errors.New("no authorizer is configured") }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, started: time.Now()}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), s.podCount(), s.containerCount(), s.nodeName())
	s.metrics = promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	return s, nil
}

// podCount counts pods when it is asked.
func (s *Server) podCount() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "kubelet_running_pods", Help: "Number of pods that have a running pod sandbox",
	}, func() float64 {
		n := 0
		for _, p := range s.cfg.Pods.List() {
			if p.Status.Phase == corev1.PodRunning {
				n++
			}
		}
		return float64(n)
	})
}

// containerCount counts running containers when it is asked.
func (s *Server) containerCount() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "kubelet_running_containers", Help: "Number of containers currently running",
		ConstLabels: prometheus.Labels{"container_state": "running"},
	}, func() float64 {
		n := 0
		for _, p := range s.cfg.Pods.List() {
			for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses} {
				for i := range list {
					if list[i].State.Running != nil {
						n++
					}
				}
			}
		}
		return float64(n)
	})
}

// nodeName is 1, and its label the node's name.
func (s *Server) nodeName() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "kubelet_node_name", Help: "The node's name. The count is always 1.", ConstLabels: prometheus.Labels{"node": s.cfg.NodeName},
	}, func() float64 { return 1 })
}

// Handler is the API with authorization.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /pods", s.pods)
	mux.HandleFunc("GET /pods/{$}", s.pods)
	mux.Handle("GET /metrics", s.metrics)
	mux.HandleFunc("GET /metrics/resource", s.resource)
	mux.HandleFunc("GET /metrics/cadvisor", s.cadvisor)
	mux.HandleFunc("GET /stats/summary", s.summary)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.logs)
	for _, uid := range []string{"", "/{uid}"} {
		mux.HandleFunc("/exec/{namespace}/{pod}"+uid+"/{container}", s.exec)
		mux.HandleFunc("/attach/{namespace}/{pod}"+uid+"/{container}", s.attach)
		mux.HandleFunc("/portForward/{namespace}/{pod}"+uid, s.portForward)
	}
	all := http.NewServeMux()
	all.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	all.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if err := s.cfg.Authorize(r); err != nil {
			http.Error(w, "Forbidden: "+err.Error(), http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
	return all
}

// Run serves until ctx ends. Streams that are open then are cut.
func (s *Server) Run(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen for the node API: %w", err)
	}
	cfg := s.cfg.TLS.Clone()
	cfg.NextProtos = []string{"http/1.1"} // upgrades of streams need it
	srv := &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 90 * time.Second,
		ErrorLog:    slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(tls.NewListener(l, cfg)) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve the node API: %w", err)
	case <-ctx.Done():
	}
	if err := srv.Close(); err != nil {
		s.cfg.Log.DebugContext(ctx, "node API closed", "err", err)
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the node API: %w", err)
	}
	return nil
}

func (s *Server) pods(w http.ResponseWriter, _ *http.Request) {
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{}}
	for _, p := range s.cfg.Pods.List() {
		list.Items = append(list.Items, *p)
	}
	writeJSON(w, list)
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // the caller has gone
}

// target finds what a request's path names.
func (s *Server) target(r *http.Request) (*corev1.Pod, []lifecycle.Sandbox, []lifecycle.Container, error) {
	pod, err := s.cfg.Pods.Find(r.PathValue("namespace"), r.PathValue("pod"), types.UID(r.PathValue("uid")))
	if err != nil {
		return nil, nil, nil, err
	}
	sandboxes, containers, err := s.cfg.Pods.Held(r.Context(), pod.UID)
	return pod, sandboxes, containers, err
}

// running returns the running container that a request's path names.
func (s *Server) running(r *http.Request) (*lifecycle.Container, error) {
	name := r.PathValue("container")
	_, _, containers, err := s.target(r)
	if err != nil {
		return nil, err
	}
	for i := range containers {
		if c := &containers[i]; c.Name == name && c.State == lifecycle.Running {
			return c, nil
		}
	}
	return nil, fmt.Errorf("container not found (%q)", name)
}
