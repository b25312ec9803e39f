package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// unit is one guarded process over all its lives.
type unit struct {
	name    string
	command Command
	score   string
	grace   time.Duration
	mayEnd  bool // status 0 means that it is done, not that it crashed
	record  *record
	log     *slog.Logger
	tried   chan struct{} // closed after the first attempt to obtain the process

	mu      sync.Mutex // guards the fields below
	proc    *process   // nil: not running
	starts  int
	last    string
	since   time.Time
	backoff backoff
	again   context.CancelCauseFunc // asks the running process to be restarted
}

// errRestart is the cause with which a unit's wait is broken off to restart it.
var errRestart = errors.New("restart asked for")

// errDone says that the process ended by itself with status 0.
var errDone = errors.New("ended")

// ConfigError says that the daemon refuses its configuration.
type ConfigError struct {
	// Message is the last line that the daemon wrote; may be empty.
	Message string
}

func (e *ConfigError) Error() string {
	if e.Message == "" {
		return "the daemon refuses its configuration"
	}
	return e.Message
}

// run keeps the process running until ctx ends; then it ends it, unless leave
// tells to let it live on. It returns errDone, a ConfigError, or what makes
// guarding impossible.
func (u *unit) run(ctx context.Context, leave func() bool) error {
	tried := sync.OnceFunc(func() { close(u.tried) })
	defer tried()
	for ctx.Err() == nil {
		p, err := u.obtain(ctx)
		tried()
		if err != nil {
			u.log.ErrorContext(ctx, "process not started", "name", u.name, "error", err)
			u.ended("not started: " + err.Error())
			u.pause(ctx, 0)
			continue
		}
		status, err := u.watch(ctx, p)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return u.finish(ctx, p, leave())
		case errors.Is(err, errRestart):
			u.log.InfoContext(ctx, "process restarts", "name", u.name, "pid", p.PID)
			status, err = p.terminate(ctx, u.grace)
			if err != nil {
				return err
			}
			u.ended(status.text)
			continue
		default:
			return err
		}
		u.ended(status.text)
		if u.mayEnd && status.known && status.code == 0 {
			return errDone
		}
		if u.mayEnd && status.known && status.code == ExitConfig {
			return &ConfigError{Message: lastLine(u.command.Log)}
		}
		u.log.WarnContext(ctx, "process ended", "name", u.name, "pid", p.PID, "status", status.text)
		u.pause(ctx, time.Since(p.began))
	}
	return nil
}

// obtain adopts the process that the record names, or starts one.
func (u *unit) obtain(ctx context.Context) (*process, error) {
	if !u.everStarted() {
		p, err := u.adopt(ctx)
		if p != nil || err != nil {
			return p, err
		}
	}
	p, err := start(u.command, u.score, func(id identity) error {
		return u.record.put(u.name, entry{id, u.command.digest()})
	})
	if err != nil {
		return nil, err
	}
	u.log.InfoContext(ctx, "process started", "name", u.name, "pid", p.PID)
	u.began(p, 1)
	return p, nil
}

// adopt returns nil when there is nothing to adopt. A process that was
// started by another command than today's is ended: it was ours as well.
func (u *unit) adopt(ctx context.Context) (*process, error) {
	known, ok := u.record.get(u.name)
	if !ok {
		return nil, nil
	}
	p, err := adopt(known.identity)
	if errors.Is(err, errGone) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if known.Command != u.command.digest() {
		u.log.InfoContext(ctx, "process of an earlier command ends", "name", u.name, "pid", p.PID)
		_, err := p.terminate(ctx, u.grace)
		return nil, err
	}
	u.log.InfoContext(ctx, "process adopted", "name", u.name, "pid", p.PID)
	u.began(p, 0)
	return p, nil
}

// watch waits for p's end, for ctx's or for a wish to restart it.
func (u *unit) watch(ctx context.Context, p *process) (exitStatus, error) {
	wait, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	u.mu.Lock()
	u.again = cancel
	u.mu.Unlock()
	status, err := p.wait(wait)
	if err != nil && ctx.Err() == nil && errors.Is(context.Cause(wait), errRestart) {
		return status, errRestart
	}
	return status, err
}

// restart asks for a restart and returns at once.
func (u *unit) restart() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.proc == nil || u.again == nil {
		return fmt.Errorf("restart %s: it does not run now and is started again by itself", u.name)
	}
	u.again(errRestart)
	return nil
}

func (u *unit) finish(ctx context.Context, p *process, leave bool) error {
	if leave {
		u.log.InfoContext(ctx, "process left running", "name", u.name, "pid", p.PID)
		return nil
	}
	status, err := p.terminate(context.WithoutCancel(ctx), u.grace)
	if err != nil {
		return err
	}
	u.ended(status.text)
	u.log.InfoContext(ctx, "process stopped", "name", u.name, "status", status.text)
	return nil
}

// pause waits before the next start of a process that had lived so long.
func (u *unit) pause(ctx context.Context, lived time.Duration) {
	u.mu.Lock()
	delay := u.backoff.crashed(lived)
	u.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(delay):
	}
}

func (u *unit) began(p *process, started int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.proc, u.since = p, time.Now()
	u.starts += started
}

func (u *unit) ended(last string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.proc, u.since, u.last = nil, time.Now(), last
}

func (u *unit) everStarted() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.starts > 0 || u.last != ""
}

func (u *unit) report() Guard {
	u.mu.Lock()
	defer u.mu.Unlock()
	g := Guard{Name: u.name, State: Stopped, Since: u.since, Starts: u.starts, LastExit: u.last}
	if u.proc != nil {
		g.State, g.PID, g.Adopted = Running, u.proc.PID, u.proc.child == nil
	}
	if u.backoff.exhausted() && (u.proc == nil || time.Since(u.since) < healthyAfter) {
		g.State = Crashing
	}
	return g
}
