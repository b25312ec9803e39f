package cli_test

import (
	"context"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"skein.dev/skein/cli"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"skein": func() {
		os.Exit(cli.Main(context.Background(), cli.Config{
			Args:    os.Args[1:],
			Streams: genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
			Version: "v1.37.2+skein.test",
			Daemon:  func(context.Context, string) error { return nil },
		}))
	}})
}

// TestCommands runs one script a command, its errors included. None starts a
// peer: tests/e2e does.
func TestCommands(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a peer needs root")
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("KUBECONFIG", "")
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
	})
}
