package apiserver

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"syscall"

	"github.com/go-logr/logr"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
)

// calm gives a pod's streams a logger that keeps silent about their end: the
// library that translates WebSockets cries error when the connection that it
// reads is closed, which is how every exec ends.
func (s *Server) calm(ctx context.Context, info *genericapirequest.RequestInfo) context.Context {
	switch info.Subresource {
	case "exec", "attach", "portforward":
		return logr.NewContextWithSlogLogger(ctx, slog.New(calmHandler{s.cfg.Log.Handler()}))
	}
	return ctx
}

// calmHandler drops records about connections that were closed.
type calmHandler struct{ slog.Handler }

// Handle implements slog.Handler.
func (h calmHandler) Handle(ctx context.Context, r slog.Record) error {
	end := false
	r.Attrs(func(a slog.Attr) bool {
		err, ok := a.Value.Any().(error)
		end = end || ok && isEnd(err)
		return !end
	})
	if end {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h calmHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return calmHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h calmHandler) WithGroup(name string) slog.Handler {
	return calmHandler{h.Handler.WithGroup(name)}
}

// isEnd reports whether err only says that one side has closed a connection.
func isEnd(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
