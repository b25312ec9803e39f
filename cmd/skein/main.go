// Command skein is the whole mesh in one binary. Which program it is today
// depends on its name: containerd, kubectl, or skein itself.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"skein.dev/skein/cli"
	"skein.dev/skein/daemon"
	"skein.dev/skein/engine/containerd"
)

// version is set by the linker. It begins with the Kubernetes version whose
// API is served.
var version = "v1.37.2+skein.dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, stop, filepath.Base(os.Args[0]))
	stop()
	os.Exit(code)
}

func run(ctx context.Context, unhandled func(), name string) int {
	c := cli.Config{
		Args:    os.Args[1:],
		Streams: genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
		Version: version, Unhandled: unhandled,
		Daemon: func(ctx context.Context, dataDir string) error {
			return daemon.Run(ctx, dataDir, version, os.Stderr)
		},
	}
	switch name {
	case containerd.Program:
		if err := containerd.Main(ctx, os.Args); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, "containerd:", err)
			return 1
		}
		return 0
	case "kubectl":
		return cli.Kubectl(c)
	}
	return cli.Main(ctx, c)
}
