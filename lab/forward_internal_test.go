package lab

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// soon is much longer than what is waited for takes, and ends a test that
// would wait for ever.
const soon = 20 * time.Second

func listeners(tb testing.TB, n int) (open []listener) {
	tb.Helper()
	for range n {
		var lc net.ListenConfig
		ln, err := lc.Listen(tb.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		open = append(open, listener{Listener: ln})
	}
	return open
}

// Whoever ends first, the context or a look at it, no listener may stay open:
// its goroutine, and with it the process, would never end.
func TestForwarderEndsWithItsContext(t *testing.T) {
	for range 1000 {
		ctx, cancel := context.WithCancel(t.Context())
		open := listeners(t, 9)
		done := make(chan struct{})
		go func() {
			defer close(done)
			serve(ctx, t.TempDir(), open)
		}()
		if c, err := net.Dial("tcp", open[8].Addr().String()); err == nil { // it works
			_ = c.Close()
		}
		cancel()
		select {
		case <-done:
		case <-time.After(soon):
			t.Fatal("the forwarder outlives its context")
		}
	}
}

func TestForwarderThatIsGivenTooFewPortsSaysSo(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l := &Lab{cfg: Config{Dir: dir}}
	if err := l.write(&state{Any: 1, Peers: []Peer{{Name: "p1", Address: netip.MustParseAddr("198.18.0.11")}}}); err != nil {
		t.Fatal(err)
	}
	first, err := listeners(t, 1)[0].Listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.Create(filepath.Join(dir, "no-socket"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "forward", dir)
	cmd.ExtraFiles = []*os.File{first, second}
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("the forwarder neither works nor ends: %s", out)
	}
	if err == nil {
		t.Errorf("the forwarder says nothing: %s", out)
	}
}
