package guard_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skein.dev/skein/guard"
)

// TestMain lets the test's binary be a guard and what a guard guards: all
// tests are of real processes.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 2 && os.Args[1] == guard.StageArg:
		fmt.Fprintln(os.Stderr, guard.Stage())
		os.Exit(1)
	case os.Args[0] == "guard-under-test":
		os.Exit(guardMain(os.Args[1]))
	case os.Args[0] == "guarded":
		unix.Exit(guarded(os.Getenv("BEHAVE"))) // at once: the race detector's exit takes a second
	}
	os.Exit(m.Run())
}

func guardMain(config string) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	cfg, err := guard.Load(config)
	if err == nil {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
		var g *guard.Supervisor
		if g, err = guard.New(cfg); err == nil {
			err = g.Run(ctx)
		}
	}
	var refused *guard.ConfigError
	switch {
	case errors.As(err, &refused):
		fmt.Fprintln(os.Stderr, refused.Message)
		return guard.ExitConfig
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// guarded is a daemon or containerd. It says that it lives in its log.
func guarded(behave string) int {
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	fmt.Println("up", os.Getpid())
	switch behave {
	case "crash":
		return 3
	case "refuse":
		fmt.Println("skein: up: port 6443: in use")
		return guard.ExitConfig
	case "leave":
		<-time.After(100 * time.Millisecond)
		return 0
	case "deaf":
		for {
			<-term
		}
	}
	<-term
	return 0
}
