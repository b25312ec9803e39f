package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// early is how long a peer that cannot become ready yet is watched for
// refusing to start at all.
const early = 3 * time.Second

// starting is a peer's start command under way.
type starting struct {
	peer  Peer
	ended chan error
	log   string
}

// Start starts a peer that was stopped or killed; after a kill it finds the
// machine as after a power cut. It returns when the peer is ready; but while
// less than a majority of the lab's peers runs none can become ready, so then
// it returns when the peer has not given up for some seconds.
func (l *Lab) Start(ctx context.Context, name string) error {
	return l.withPeer(ctx, name, func(s *state, p *Peer) error {
		if err := ensureFabric(l.cfg.Dir, s.Peers); err != nil {
			return fmt.Errorf("make the lab's network: %w", err)
		}
		if err := l.ensureForwarder(ctx, s); err != nil {
			return err
		}
		start, err := l.start(ctx, *p)
		if err != nil {
			return err
		}
		return start.wait(ctx, l.enough(ctx, s, *p))
	})
}

// startMade starts all peers of the mesh that do not run, at once: after a
// power cut one alone waits for the others.
func (l *Lab) startMade(ctx context.Context, s *state) error {
	var all []*starting
	for _, p := range s.Peers {
		if !p.Made || l.accepts(ctx, p) {
			continue
		}
		start, err := l.start(ctx, p)
		if err != nil {
			return err
		}
		all = append(all, start)
	}
	for _, start := range all {
		if err := start.wait(ctx, true); err != nil {
			return err
		}
		l.say("peer %s is up", start.peer.Name)
	}
	return nil
}

// start begins a peer's start. Its command outlives the lab's when nobody
// waits for it, so it writes to a file.
func (l *Lab) start(ctx context.Context, p Peer) (*starting, error) {
	if !p.Made {
		return nil, fmt.Errorf("peer %s: it was never part of the mesh: `skein lab up` makes it", p.Name)
	}
	pids, err := processes(p.Cgroup)
	if err != nil {
		return nil, err
	}
	if len(pids) == 0 { // as a reboot does
		if err := os.RemoveAll(p.StateDir()); err != nil {
			return nil, fmt.Errorf("clear state of %s: %w", p.Name, err)
		}
	}
	path := filepath.Join(p.Dir, "start.log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer func() { _ = log.Close() }()
	cmd, err := begin(context.WithoutCancel(ctx), l.cfg.Dir, p, l.cfg.Commands.Start(p), stdio{out: log, err: log})
	if err != nil {
		return nil, err
	}
	s := &starting{peer: p, ended: make(chan error, 1), log: path}
	go func() { s.ended <- cmd.Wait() }()
	return s, nil
}

// wait returns when the start has ended, or with ready unset after a while.
func (s *starting) wait(ctx context.Context, ready bool) error {
	var patience <-chan time.Time
	if !ready {
		t := time.NewTimer(early)
		defer t.Stop()
		patience = t.C
	}
	select {
	case err := <-s.ended:
		if err == nil {
			return nil
		}
		words, readErr := os.ReadFile(s.log)
		if readErr != nil {
			words = nil
		}
		return fmt.Errorf("start peer %s: %w: %s", s.peer.Name, err, lastLine(string(words)))
	case <-patience:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("start peer %s: %w", s.peer.Name, ctx.Err())
	}
}

// enough reports whether a majority of the mesh's peers runs once p does.
func (l *Lab) enough(ctx context.Context, s *state, p Peer) bool {
	all, running := 0, 0
	for _, q := range s.Peers {
		if !q.Made {
			continue
		}
		all++
		if q.Name == p.Name || q.Cut == p.Cut && l.accepts(ctx, q) {
			running++
		}
	}
	return running > all/2
}

// accepts reports whether the peer's API takes connections.
func (l *Lab) accepts(ctx context.Context, p Peer) bool {
	c, err := dialWithin(ctx, pin(l.cfg.Dir, p.Name), net.JoinHostPort(p.Address.String(), strconv.Itoa(apiPort)))
	if err != nil {
		return false
	}
	_ = c.Close() // nothing was said
	return true
}

// Stop has a peer stop itself in order; what it leaves running by design, such
// as containers, goes on.
func (l *Lab) Stop(ctx context.Context, name string) error {
	return l.withPeer(ctx, name, func(_ *state, p *Peer) error {
		pids, err := processes(p.Cgroup)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return fmt.Errorf("peer %s: %w", name, ErrStopped)
		}
		_, err = l.run(ctx, *p, l.cfg.Commands.Stop(*p))
		return err
	})
}

// Kill ends processes of a peer with SIGKILL: those in the cgroup part below
// the peer's, such as "daemon", or all of them, containers included, if part
// is empty, as when the power fails.
func (l *Lab) Kill(ctx context.Context, name, part string) error {
	return l.withPeer(ctx, name, func(_ *state, p *Peer) error {
		if part != "" && !filepath.IsLocal(part) {
			return fmt.Errorf("kill %s of %s: not a cgroup below the peer's", part, name)
		}
		pids, err := processes(filepath.Join(p.Cgroup, part))
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return fmt.Errorf("peer %s: %w", name, ErrStopped)
		}
		if part == "" {
			return killAll(ctx, p.Cgroup)
		}
		return killOnce(pids)
	})
}

// Cut separates the named peers from the rest; among themselves they stay
// connected. Peers that were cut off before stay so.
func (l *Lab) Cut(ctx context.Context, names ...string) error {
	return l.rewired(ctx, func(s *state) error {
		if len(names) == 0 {
			return errors.New("cut: no peer named")
		}
		group := 0
		for _, p := range s.Peers {
			group = max(group, p.Cut)
		}
		for _, name := range names {
			p, err := s.peer(name)
			if err != nil {
				return err
			}
			p.Cut = group + 1
		}
		if !slices.ContainsFunc(s.Peers, func(p Peer) bool { return p.Cut != group+1 }) {
			return errors.New("cut: that would be all peers: there is no rest to cut them from")
		}
		return nil
	})
}

// Heal connects all peers again.
func (l *Lab) Heal(ctx context.Context) error {
	return l.rewired(ctx, func(s *state) error {
		for i := range s.Peers {
			s.Peers[i].Cut = 0
		}
		return nil
	})
}

func (l *Lab) rewired(ctx context.Context, change func(*state) error) error {
	return l.existing(ctx, func(s *state) error {
		if err := change(s); err != nil {
			return err
		}
		if err := rewire(l.cfg.Dir, s.Peers); err != nil {
			return err
		}
		return l.write(s)
	})
}
