package gossip

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"skein.dev/skein/api/member"
	"skein.dev/skein/gossip/view"
)

const (
	probeInterval = 500 * time.Millisecond
	streamTimeout = 3 * time.Second
)

// Run gossips until ctx ends and then closes Packets and Streams without a
// word; call Announce before for a stop on purpose.
func (p *Pool) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	tr := newTransport(ctx, p.cfg)
	list, err := memberlist.Create(p.settings(tr))
	if err != nil {
		_ = tr.Shutdown() // the first error counts
		return fmt.Errorf("start gossip: %w", err)
	}
	p.setList(list)
	defer func() {
		p.setList(nil)
		if err := list.Shutdown(); err != nil {
			p.cfg.Log.WarnContext(ctx, "stop gossip", "error", err)
		}
	}()
	p.loop(ctx, &work)
	return nil
}

// settings tunes memberlist. Its verdicts only start probes here, so it may
// judge fast: with SuspicionMult 2 it awaits no confirmations, which small
// meshes could not give in time (with four peers both survivors would have to
// confirm within a window that is otherwise six times longer). A peer that
// falls silent is suspected within 1.5 to 4 s for up to five peers, and given
// up one second later.
func (p *Pool) settings(tr *transport) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = string(p.cfg.Self.Name)
	c.Label = p.cfg.Mesh
	c.Transport = tr
	c.AdvertisePort = int(p.cfg.Self.Port)
	c.BindPort = int(p.cfg.Self.Port)
	c.Keyring = p.ring
	c.Logger = slog.NewLogLogger(p.cfg.Log.Handler(), slog.LevelDebug)
	c.TCPTimeout = streamTimeout
	c.ProbeInterval = probeInterval
	c.ProbeTimeout = 250 * time.Millisecond
	c.SuspicionMult = 2
	c.SuspicionMaxTimeoutMult = 1
	c.AwarenessMaxMultiplier = 3
	c.EnableCompression = false // a packet has some hundred bytes, and each would cost a table of 64 KiB
	c.PushPullInterval = 30 * time.Second
	c.DeadNodeReclaimTime = time.Second // a peer may come back with another address
	c.Delegate = delegate{p}
	c.Events = delegate{p}
	c.Alive = delegate{p}
	return c
}

// loop steps the machine and does what it plans.
func (p *Pool) loop(ctx context.Context, work *sync.WaitGroup) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := p.step(ctx, work)
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-timer.C:
		}
	}
}

func (p *Pool) step(ctx context.Context, work *sync.WaitGroup) (next time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	events := append(p.inbox, view.Ticked{})
	p.inbox = nil
	changed := false
	for _, ev := range events {
		plan := p.machine.Step(ev, time.Now())
		changed = changed || plan.Changed
		for _, m := range plan.Probe {
			work.Go(func() { p.probe(ctx, m) })
		}
		for _, m := range plan.Rejoin {
			work.Go(func() { p.rejoin(ctx, m) })
		}
	}
	if changed {
		p.publishLocked(ctx)
	}
	return p.machine.Next()
}

func (p *Pool) publishLocked(ctx context.Context) {
	old := make(map[member.Name]member.State)
	for _, o := range p.peers {
		old[o.Name] = o.State
	}
	p.peers, p.near = p.machine.Peers(), p.machine.Reachable()
	for _, n := range p.peers {
		if old[n.Name] != n.State {
			p.cfg.Log.InfoContext(ctx, "peer changed", "peer", n.Name, "from", old[n.Name], "to", n.State)
		}
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// probe asks daemon and guard at once, so that a machine that swallows
// packets costs one time-out, not two.
func (p *Pool) probe(ctx context.Context, m view.Probe) {
	pctx, cancel := context.WithTimeout(ctx, p.cfg.ProbeTimeout)
	defer cancel()
	result := view.Probed{Name: m.Name, Round: m.Round}
	var both sync.WaitGroup
	both.Go(func() { result.Guard = p.cfg.Prober.ProbeGuard(pctx, m.Member) == nil })
	both.Go(func() {
		err := p.cfg.Prober.ProbeDaemon(pctx, m.Member)
		result.Daemon = err == nil
		if err != nil {
			p.cfg.Log.DebugContext(ctx, "probe daemon", "peer", m.Name, "error", err)
		}
	})
	both.Wait()
	if ctx.Err() == nil {
		p.post(result)
	}
}

func (p *Pool) rejoin(ctx context.Context, m Member) {
	list := p.current()
	if list == nil || len(m.Addresses) == 0 {
		return
	}
	addr := netip.AddrPortFrom(m.Addresses[0], m.Port).String()
	if _, err := list.Join([]string{string(m.Name) + "/" + addr}); err != nil {
		p.cfg.Log.DebugContext(ctx, "rejoin peer", "peer", m.Name, "error", err)
	}
}

func (p *Pool) setList(l *memberlist.Memberlist) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = l
}

func (p *Pool) current() *memberlist.Memberlist {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.list
}
