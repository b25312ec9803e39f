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
	os.Exit(run(context.Background(), filepath.Base(os.Args[0])))
}

func run(ctx context.Context, name string) int {
	c := cli.Config{
		Args:    os.Args[1:],
		Streams: genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
		Version: version,
		Daemon: func(ctx context.Context, dataDir string) error {
			if err := daemon.LeadLibraryLog(dataDir, os.Stderr); err != nil {
				return err
			}
			return daemon.Run(ctx, dataDir, version, os.Stderr)
		},
	}
	switch name {
	case containerd.Program:
		ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
		defer stop()
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
