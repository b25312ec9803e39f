package daemon

import (
	"fmt"
	"io"
	"log/slog"

	"k8s.io/klog/v2" //nolint:depguard // the libraries log with klog; this is where it is led into slog
)

// newLogger returns the peer's logger and leads the libraries' output into it.
func newLogger(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log-level %q: want debug, info, warn or error", level)
	}
	log := slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l}))
	// The libraries' "info" is detail to us: only their warnings and errors
	// are news, unless the operator asks for all.
	library := slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: max(l, slog.LevelWarn)}))
	if l == slog.LevelDebug {
		library = log
	}
	klog.SetSlogLogger(library.With("component", "library"))
	return log, nil
}
