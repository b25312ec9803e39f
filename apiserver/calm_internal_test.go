package apiserver

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/klog/v2" //nolint:depguard // what the library logs with is what is tested
)

func TestEndOfAStreamIsNoError(t *testing.T) {
	var out bytes.Buffer
	s := &Server{cfg: Config{Log: slog.New(slog.NewTextHandler(&out, nil))}}
	say := func(sub string, err error) string {
		out.Reset()
		// As the library does it.
		klog.FromContext(s.calm(t.Context(), &genericapirequest.RequestInfo{Subresource: sub})).Error(err, "Error on socket receive")
		return out.String()
	}
	closed := fmt.Errorf("read tcp: %w", net.ErrClosed)
	for _, sub := range []string{"exec", "attach", "portforward"} {
		if got := say(sub, closed); got != "" {
			t.Errorf("%s ended: got %q, want silence", sub, got)
		}
		if got := say(sub, errors.New("frame of an unknown kind")); !strings.Contains(got, "unknown kind") {
			t.Errorf("%s failed: got %q, want the error", sub, got)
		}
	}
	if _, err := logr.FromContext(s.calm(t.Context(), &genericapirequest.RequestInfo{Subresource: "log"})); err == nil {
		t.Error("other requests have got a logger of their own")
	}
}
