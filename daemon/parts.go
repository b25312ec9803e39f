package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"
)

// A Part is one piece of a peer. Run blocks until ctx ends, or returns an
// error when it cannot go on.
type Part struct {
	Name string
	Run  func(ctx context.Context) error
	// Restart makes the part's failures its own: it is started again after
	// a pause, up to its crash budget, and then parked and reported, while
	// the other parts go on. Without it a failure ends the peer.
	Restart bool
	// Ready, if set, is waited for before the next part starts.
	Ready func(ctx context.Context) error
}

// The crash budget of a part: so many failures within so long park it.
const (
	crashBudget = 5
	crashWindow = 10 * time.Minute
	crashPause  = time.Second
)

// errParked ends the attempts to restart a part.
var errParked = errors.New("parked: it failed too often")

// RunParts starts parts in order, each once the one before it is ready, and
// when ctx ends or a part fails stops them one at a time in reverse order.
// It returns the joined errors of the parts, nil after a clean stop.
func RunParts(ctx context.Context, log *slog.Logger, parts []Part) error {
	type handle struct {
		name string
		stop context.CancelFunc
		done chan error
	}
	ctx, fail := context.WithCancel(ctx)
	defer fail()
	var running []handle
	for _, p := range parts {
		// Not a child of ctx: the parts above must stop before this one does.
		pctx, stop := context.WithCancel(context.WithoutCancel(ctx))
		h := handle{p.Name, stop, make(chan error, 1)}
		go func() {
			h.done <- runPart(pctx, log, p)
			if pctx.Err() == nil && !p.Restart {
				fail()
			}
		}()
		running = append(running, h)
		if p.Ready != nil {
			// A part that is never ready ends with ctx, and so do we below.
			if err := p.Ready(ctx); err != nil && ctx.Err() == nil {
				h.stop()
				fail()
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	<-ctx.Done()
	var errs []error
	for _, h := range slices.Backward(running) {
		h.stop()
		if err := <-h.done; err != nil && !errors.Is(err, context.Canceled) {
			errs = append(errs, fmt.Errorf("%s: %w", h.name, err))
		}
	}
	return errors.Join(errs...)
}

// runPart runs p within its panic boundary and, if p may restart, again after
// each failure until the crash budget is spent.
func runPart(ctx context.Context, log *slog.Logger, p Part) error {
	var failures []time.Time
	for {
		err := guarded(ctx, p.Run)
		if ctx.Err() != nil || !p.Restart {
			return err
		}
		now := time.Now()
		failures = append(failures, now)
		failures = slices.DeleteFunc(failures, func(t time.Time) bool { return now.Sub(t) > crashWindow })
		if len(failures) >= crashBudget {
			log.ErrorContext(ctx, "part is parked after repeated failures", "part", p.Name, "err", err)
			<-ctx.Done()
			return fmt.Errorf("%w: last: %w", errParked, err)
		}
		log.WarnContext(ctx, "part failed and is started again", "part", p.Name, "err", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(crashPause * time.Duration(len(failures))):
		}
	}
}

// panicError is what a part that panicked failed with.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.value, e.stack) }

// guarded turns a panic of run's own goroutine into an error.
func guarded(ctx context.Context, run func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{v, debug.Stack()}
		}
	}()
	return run(ctx)
}
