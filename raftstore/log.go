package raftstore

import (
	"context"
	"io"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// bridge makes raft log to l. Raft's Info tells what its own state machine
// does, which is our Debug; what the commit push provokes on followers that
// do not have the entry yet is no warning.
func bridge(l *slog.Logger) hclog.Logger {
	root := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Off, Output: io.Discard})
	root.RegisterSink(sink{l})
	return root
}

type sink struct{ log *slog.Logger }

// Accept implements [hclog.SinkAdapter].
func (s sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch {
	case strings.HasPrefix(msg, "failed to get previous log"), strings.HasPrefix(msg, "previous log term mis-match"):
	case level >= hclog.Error:
		to = slog.LevelWarn // raft goes on after all its errors: a human need not act
	}
	ctx := context.Background() //nolint:forbidigo // hclog's sinks have no context
	if s.log.Enabled(ctx, to) {
		s.log.Log(ctx, to, "raft speaks", append([]any{"text", msg}, args...)...)
	}
}
