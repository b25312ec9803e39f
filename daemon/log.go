package daemon

import (
	"fmt"
	"io"
	"log/slog"

	"k8s.io/klog/v2" //nolint:depguard // the libraries log with klog; this is where it is led into slog
)

func logLevel(level string) (l slog.Level, err error) {
	if l.UnmarshalText([]byte(level)) != nil {
		err = fmt.Errorf("log-level %q: want debug, info, warn or error", level)
	}
	return l, err
}

// newLogger returns the peer's logger.
func newLogger(w io.Writer, level string) (*slog.Logger, error) {
	l, err := logLevel(level)
	if err != nil {
		return nil, err
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l})), nil
}

// LeadLibraryLog leads what the libraries log into w, as the peer of dataDir
// is configured to log. They have one logger for the whole process, so it is
// called once, before anything runs.
func LeadLibraryLog(dataDir string, w io.Writer) error {
	c, err := LoadConfig(dataDir)
	if err != nil {
		return &configError{err}
	}
	l, err := logLevel(c.LogLevel)
	if err != nil {
		return &configError{err}
	}
	// The libraries' "info" is detail to us: only their warnings and errors
	// are news, unless the operator asks for all.
	if l != slog.LevelDebug {
		l = max(l, slog.LevelWarn)
	}
	log := slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l}))
	klog.SetSlogLogger(log.With("component", "library"))
	return nil
}
