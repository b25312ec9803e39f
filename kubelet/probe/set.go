// Package probe asks containers how they are, as their probes say, and counts
// the answers against the thresholds.
//
// Its invariant: a result belongs to one container id, so a restarted
// container begins with nothing known.
package probe

import (
	"context"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"skein.dev/skein/kubelet/lifecycle"
)

// Kind is one of the three kinds of probes.
type Kind string

// The kinds, by the names that events use.
const (
	Startup   Kind = "Startup"
	Readiness Kind = "Readiness"
	Liveness  Kind = "Liveness"
)

// Target is a running container with probes.
type Target struct {
	ID        string
	Container *corev1.Container
	// IP is the pod's address, the node's for pods on its network.
	IP      string
	Started time.Time
}

// Config of a [Set].
type Config struct {
	// Exec runs a command in a container.
	Exec Execer
	// Changed is called, from a goroutine of the set, when a result changed.
	// It must not block.
	Changed func()
	// Failed is called for each answer that is not a success.
	Failed func(c *corev1.Container, kind Kind, output string)
	// Spread delays first probes by a random part of their period; set it
	// for containers that were found running.
	Spread bool
}

// Set probes the containers of one pod.
type Set struct {
	cfg Config
	wg  sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	cancel  map[string]context.CancelFunc
	results map[string]lifecycle.Probes
	started map[string]chan struct{} // closed once the startup probe passed
}

// New returns a set that probes nothing yet.
func New(cfg Config) *Set {
	return &Set{
		cfg:     cfg,
		cancel:  map[string]context.CancelFunc{},
		results: map[string]lifecycle.Probes{},
		started: map[string]chan struct{}{},
	}
}

// Sync makes the set probe exactly the targets, until ctx ends.
func (s *Set) Sync(ctx context.Context, targets []Target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := map[string]bool{}
	for _, t := range targets {
		want[t.ID] = true
		if _, ok := s.cancel[t.ID]; !ok {
			s.addLocked(ctx, t)
		}
	}
	s.dropLocked(want)
}

// dropLocked ends the probes of all containers but those to keep.
func (s *Set) dropLocked(keep map[string]bool) {
	for id, cancel := range s.cancel {
		if !keep[id] {
			cancel()
			delete(s.cancel, id)
			delete(s.results, id)
			delete(s.started, id)
		}
	}
}

func (s *Set) addLocked(ctx context.Context, t Target) {
	ctx, cancel := context.WithCancel(ctx)
	s.cancel[t.ID] = cancel
	started := make(chan struct{})
	s.started[t.ID] = started
	c := t.Container
	if c.StartupProbe == nil {
		close(started)
	} else {
		s.wg.Go(func() { s.run(ctx, t, Startup, c.StartupProbe, nil) })
	}
	if c.ReadinessProbe != nil {
		s.wg.Go(func() { s.run(ctx, t, Readiness, c.ReadinessProbe, started) })
	}
	if c.LivenessProbe != nil {
		s.wg.Go(func() { s.run(ctx, t, Liveness, c.LivenessProbe, started) })
	}
}

// Results returns what is known, by container id.
func (s *Set) Results() map[string]lifecycle.Probes {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]lifecycle.Probes, len(s.results))
	maps.Copy(out, s.results)
	return out
}

// Stop ends all probes and waits for them.
func (s *Set) Stop() {
	s.mu.Lock()
	s.dropLocked(nil)
	s.mu.Unlock()
	s.wg.Wait()
}

// run is the loop of one probe.
func (s *Set) run(ctx context.Context, t Target, kind Kind, p *corev1.Probe, started <-chan struct{}) {
	if started != nil {
		select {
		case <-started:
		case <-ctx.Done():
			return
		}
	}
	period := seconds(p.PeriodSeconds, 10)
	delay := time.Until(t.Started.Add(time.Duration(p.InitialDelaySeconds) * time.Second))
	if s.cfg.Spread && delay <= 0 {
		delay = rand.N(period)
	}
	if !wait(ctx, max(delay, 0)) {
		return
	}
	var count tally
	for {
		ok, output := s.once(ctx, t, p)
		if ctx.Err() != nil {
			return
		}
		if !ok {
			s.cfg.Failed(t.Container, kind, output)
		}
		if result, sure := count.add(ok, p); sure {
			s.record(t.ID, kind, p, result)
			if kind == Startup && result {
				return
			}
		}
		if !wait(ctx, period) {
			return
		}
	}
}

func seconds(n int32, zero int) time.Duration {
	if n <= 0 {
		return time.Duration(zero) * time.Second
	}
	return time.Duration(n) * time.Second
}

func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// tally counts equal answers in a row.
type tally struct {
	last bool
	run  int32
}

// add counts an answer and reports whether it has been given often enough to
// be believed.
func (c *tally) add(ok bool, p *corev1.Probe) (result, sure bool) {
	if c.run > 0 && c.last == ok {
		c.run++
	} else {
		c.last, c.run = ok, 1
	}
	need := p.FailureThreshold
	if need <= 0 {
		need = 3
	}
	if ok {
		need = max(p.SuccessThreshold, 1)
	}
	return ok, c.run >= need
}

// record stores a believed result and tells when it is news.
func (s *Set) record(id string, kind Kind, p *corev1.Probe, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, live := s.cancel[id]; !live {
		return
	}
	r := s.results[id]
	before := r
	switch kind {
	case Startup:
		r.Started = &ok
		if ok {
			close(s.started[id])
		} else {
			r.Unhealthy, r.Grace = "failed startup probe", p.TerminationGracePeriodSeconds
		}
	case Readiness:
		r.Ready = &ok
	case Liveness:
		if !ok {
			r.Unhealthy, r.Grace = "failed liveness probe", p.TerminationGracePeriodSeconds
		}
	}
	s.results[id] = r
	if !equal(before.Started, r.Started) || !equal(before.Ready, r.Ready) || before.Unhealthy != r.Unhealthy {
		s.cfg.Changed()
	}
}

func equal(a, b *bool) bool { return (a == nil) == (b == nil) && (a == nil || *a == *b) }
