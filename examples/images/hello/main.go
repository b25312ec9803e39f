// Command hello is the server of examples/hello: it answers each request with
// the name of its pod. Its invariant: it needs nothing but its own file.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := serve(ctx, log); err != nil {
		log.ErrorContext(ctx, "stopped", "error", err)
		os.Exit(1)
	}
}

// serve answers on :8080 until ctx ends; requests under way are finished.
func serve(ctx context.Context, log *slog.Logger) error {
	name, err := os.Hostname() // in a pod it is the pod's name
	if err != nil {
		return fmt.Errorf("find my name: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintln(w, name)
		log.InfoContext(r.Context(), "answered", "path", r.URL.Path, "client", r.RemoteAddr)
	})
	server := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stopped := make(chan error, 1)
	context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		stopped <- server.Shutdown(grace)
	})
	log.InfoContext(ctx, "listening", "name", name, "address", server.Addr)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return <-stopped
}
