// Package guard is the small process above a peer's daemon: it keeps the
// daemon and containerd running, adopts them after a restart of its own, and
// answers for the machine while the daemon cannot.
//
// Its invariant: it ends and signals only processes that it started or that
// an earlier guard of the same peer wrote down, told by their start time, and
// never a container.
package guard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Names of the guarded processes.
const (
	Daemon = "daemon"
	Engine = "containerd"
)

// Supervisor is a peer's guard. Its Run is called once.
type Supervisor struct {
	cfg     Config
	boot    string
	engine  *unit // nil: the container runtime is another's
	daemon  *unit
	missing []string
	// stopEngine says that containerd ends with the guard.
	stopEngine atomic.Bool
	stop       chan struct{} // closed by the wish to stop
	stopOnce   sync.Once
}

// New checks cfg and fills its defaults in; it touches nothing.
func New(cfg Config) (*Supervisor, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	return &Supervisor{cfg: cfg, boot: boot, stop: make(chan struct{})}, nil
}

// Run guards until ctx ends: then it ends the daemon and leaves containerd and
// the containers alone, to be adopted by the next guard. It returns nil as
// well after a wish to stop on the control socket and when the daemon ends by
// itself with status 0; a [ConfigError] when the daemon refuses its
// configuration; and an error, before anything is started, when the state
// directory or the port is another's.
func (s *Supervisor) Run(ctx context.Context) error {
	held, err := lock(s.cfg.StateDir)
	if err != nil {
		return err
	}
	defer held.Close()
	var lc net.ListenConfig
	alive, err := lc.Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen for probes: %w", err)
	}
	defer alive.Close()
	control, err := listenControl(ctx, s.cfg.StateDir)
	if err != nil {
		return err
	}
	defer control.Close()
	rec, err := openRecord(s.cfg.StateDir, s.boot)
	if err != nil {
		return err
	}
	s.harden(ctx)
	s.makeUnits(rec)
	return s.guard(ctx, alive, control)
}

// guard runs the units and the listeners; they end in the order in which the
// one needs the other.
func (s *Supervisor) guard(ctx context.Context, alive, control net.Listener) error {
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	var servers errgroup.Group
	servers.Go(func() error { return s.serveAlive(serving, alive) })
	servers.Go(func() error { return s.serveControl(serving, control) })

	engine, stopEngine := context.WithCancel(context.WithoutCancel(ctx))
	defer stopEngine()
	var engineEnd errgroup.Group
	if s.engine != nil {
		engineEnd.Go(func() error {
			// It only returns before its context with an error: then the
			// guard cannot do its work and ends as a whole.
			defer s.wishStop()
			return s.engine.run(engine, func() bool { return !s.stopEngine.Load() })
		})
		<-s.engine.tried // the engine first: the daemon waits for its socket
	}
	err := s.guardDaemon(ctx)
	stopEngine()
	err = errors.Join(err, engineEnd.Wait())
	stopServing()
	return errors.Join(err, servers.Wait())
}

func (s *Supervisor) guardDaemon(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := s.daemon.run(ctx, func() bool { return false })
	var refused *ConfigError
	if errors.As(err, &refused) && s.daemon.report().Starts == 1 && s.engine != nil {
		// Nothing half done: what this guard has started for a peer that
		// never was goes too.
		s.stopEngine.Store(!s.engine.report().Adopted)
	}
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

func (s *Supervisor) harden(ctx context.Context) {
	for _, err := range harden(s.cfg.Cgroup) {
		s.cfg.Log.WarnContext(ctx, "guard is less protected", "error", err)
		s.missing = append(s.missing, err.Error())
	}
}

func (s *Supervisor) makeUnits(rec *record) {
	score := guardedScore.String()
	if b, err := os.ReadFile("/proc/self/oom_score_adj"); err != nil || string(b) != guardScore.String()+"\n" {
		score = "" // the guard's own could not be lowered, so theirs cannot
	}
	unitOf := func(name string, c Command) *unit {
		return &unit{name: name, command: c, score: score, grace: s.cfg.Grace, record: rec, log: s.cfg.Log, tried: make(chan struct{}), since: time.Now()}
	}
	if s.cfg.Engine != nil {
		s.engine = unitOf(Engine, *s.cfg.Engine)
	}
	s.daemon = unitOf(Daemon, s.cfg.Daemon)
	s.daemon.mayEnd = true
}

func (s *Supervisor) wishStop() { s.stopOnce.Do(func() { close(s.stop) }) }

// status is the public answer.
func (s *Supervisor) status() Status {
	d := s.daemon.report()
	st := Status{BootID: s.boot, Daemon: d.State, Since: d.Since}
	if s.cfg.Incarnation != "" {
		if b, err := os.ReadFile(s.cfg.Incarnation); err == nil && len(b) < 1<<10 {
			st.Incarnation = string(b)
		}
	}
	return st
}

func (s *Supervisor) report() Report {
	r := Report{Status: s.status(), PID: os.Getpid(), Missing: s.missing}
	if s.engine != nil {
		r.Guards = append(r.Guards, s.engine.report())
	}
	r.Guards = append(r.Guards, s.daemon.report())
	return r
}
