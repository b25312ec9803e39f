package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"skein.dev/skein/proxy/render"
)

// healthChecks answers load balancers that ask whether this machine has
// endpoints of a service, each service on a port of its own. Its methods are
// called by one goroutine.
type healthChecks struct {
	listen  func(ctx context.Context, port uint16) (net.Listener, error)
	log     *slog.Logger
	wg      sync.WaitGroup
	servers map[string]*healthServer // by service
}

type healthServer struct {
	http  *http.Server
	port  uint16
	local atomic.Int64
}

func newHealthChecks(c Config, log *slog.Logger) *healthChecks {
	h := &healthChecks{listen: c.Listen, log: log, servers: map[string]*healthServer{}}
	if h.listen == nil {
		h.listen = func(ctx context.Context, port uint16) (net.Listener, error) {
			var lc net.ListenConfig
			return lc.Listen(ctx, "tcp", net.JoinHostPort("", strconv.Itoa(int(port))))
		}
	}
	return h
}

// set makes the check of a service what it shall be; ok is whether it has
// one. A port that cannot be had is logged and tried again at the service's
// next change.
func (h *healthChecks) set(ctx context.Context, key string, want render.Health, ok bool) {
	s := h.servers[key]
	if s != nil && (!ok || s.port != want.Port) {
		h.stop(s)
		delete(h.servers, key)
		s = nil
	}
	if !ok {
		return
	}
	if s == nil {
		l, err := h.listen(ctx, want.Port)
		if err != nil {
			h.log.WarnContext(ctx, "no health check for a service", "service", key, "port", want.Port, "err", err)
			return
		}
		s = h.serve(ctx, key, want.Port, l)
	}
	s.local.Store(int64(want.Local))
}

func (h *healthChecks) serve(ctx context.Context, key string, port uint16, l net.Listener) *healthServer {
	s := &healthServer{port: port}
	namespace, name, _ := strings.Cut(key, "/")
	s.http = &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { s.answer(w, namespace, name) }),
	}
	h.servers[key] = s
	h.wg.Go(func() {
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			h.log.WarnContext(ctx, "health check of a service ended", "service", key, "err", err)
		}
	})
	return s
}

// answer is in the words that load balancers know from upstream's proxy.
func (s *healthServer) answer(w http.ResponseWriter, namespace, name string) {
	local := s.local.Load()
	body, err := json.Marshal(map[string]any{
		"service":        map[string]string{"namespace": namespace, "name": name},
		"localEndpoints": local, "serviceProxyHealthy": true,
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.FormatInt(local, 10))
	if local == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = fmt.Fprintln(w, string(body)) // the asker has gone
}

func (h *healthChecks) stop(s *healthServer) {
	_ = s.http.Close() // connections that are open are cut
}

// close ends all checks.
func (h *healthChecks) close() {
	for key, s := range h.servers {
		h.stop(s)
		delete(h.servers, key)
	}
	h.wg.Wait()
}
