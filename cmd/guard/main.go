// Command guard supervises one peer's daemon and containerd (package guard).
// Its invariant: it links neither Kubernetes nor containerd, so that it stays
// small enough to be locked in memory on every machine.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"skein.dev/skein/guard"
)

const usage = "usage: guard CONFIG.json"

func main() {
	err := run(os.Args[1:])
	if refused, ok := errors.AsType[*guard.ConfigError](err); ok {
		if refused.Message != "" { // else it was written to this stderr
			fmt.Fprintln(os.Stderr, refused.Message)
		}
		os.Exit(guard.ExitConfig)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "skein:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("guard: %s", usage)
	}
	if args[0] == guard.StageArg {
		return guard.Stage()
	}
	// The first signal stops in order, a second one at once.
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop)
	cfg, err := guard.Load(args[0])
	if err != nil {
		return err
	}
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("component", "guard")
	g, err := guard.New(cfg)
	if err != nil {
		return err
	}
	return g.Run(ctx)
}
