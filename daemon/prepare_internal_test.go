package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"skein.dev/skein/engine/programs"
)

func TestTheGuardIsToldWhereTheIncarnationIs(t *testing.T) {
	dir, err := os.MkdirTemp("", "sk-") //nolint:usetesting // the engine's sockets need a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := DefaultConfig()
	c.DataDir, c.StateDir = filepath.Join(dir, "d"), filepath.Join(dir, "s")
	c.RuntimeEndpoint = "unix:///run/other.sock" // no containerd of ours to configure
	l, err := Prepare(t.Context(), c, "/bin/true")
	if errors.Is(err, programs.ErrNotBuilt) {
		t.Skip(err) // `make programs` has not run
	}
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(c.StateDir, incarnationFile); l.Config.Incarnation != want {
		t.Errorf("guard reads the incarnation from %q, want %q, where the daemon writes it", l.Config.Incarnation, want)
	}
}
