package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
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

func TestADaemonIsNotProfiledUnlessAskedTo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ env, want []string }{
		"nothing said":         {[]string{"A=b"}, []string{"A=b", "GODEBUG=memprofilerate=0"}},
		"said empty":           {[]string{"GODEBUG="}, []string{"GODEBUG=memprofilerate=0"}},
		"something else said":  {[]string{"GODEBUG=gctrace=1", "A=b"}, []string{"GODEBUG=gctrace=1,memprofilerate=0", "A=b"}},
		"profiling asked for":  {[]string{"GODEBUG=memprofilerate=1"}, []string{"GODEBUG=memprofilerate=1"}},
		"no environment given": {nil, []string{"GODEBUG=memprofilerate=0"}},
	} {
		if got := unprofiled(c.env); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}
