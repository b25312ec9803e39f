package proxy

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"

	"skein.dev/skein/api/component"
	"skein.dev/skein/api/member"
	"skein.dev/skein/network/lb"
	"skein.dev/skein/proxy/render"
)

// loop is the state of a running Proxy; only Run's goroutine touches it.
type loop struct {
	*Proxy
	place render.Place
	// have is what the kernel was told, by service; owner says for each
	// front whose it is, because a front may pass from one service to the
	// next before the first one's deletion is seen.
	have  map[string]map[lb.Front]lb.Service
	owner map[lb.Front]string
	// adopted are fronts found in the kernel that stay untouched until the
	// replica is settled.
	adopted map[lb.Front]bool
	settled bool
	known   bool // the machine's ports have been told
	full    bool // look at everything, the kernel included
	retry   time.Duration
	health  *healthChecks
}

func newLoop(p *Proxy) *loop {
	return &loop{Proxy: p, full: true, retry: retryMin, health: newHealthChecks(p.cfg, p.log)}
}

// step does what there is to do and returns when to come back unasked; 0
// means never.
func (l *loop) step(ctx context.Context) time.Duration {
	if place := l.look(); !samePlace(place, l.place) {
		l.place = place
		l.markAll()
	}
	if settled := l.cfg.Kit.Settled == nil || l.cfg.Kit.Settled(); settled && !l.settled {
		l.settled, l.full = true, true
	}
	if _, known := l.ports(); known && !l.known {
		l.known, l.full = true, true // now what no service has is nobody's
	}
	if err := l.update(ctx); err != nil {
		if ctx.Err() != nil {
			return 0
		}
		l.log.WarnContext(ctx, "services are not as they should be", "err", err, "retryAfter", l.retry)
		l.full = true
		wait := l.retry
		l.retry = min(2*l.retry, retryMax)
		return wait
	}
	l.retry = retryMin
	if !l.settled {
		return unsettledPoll
	}
	return 0
}

// look asks where we are and who is dead.
func (l *loop) look() render.Place {
	at := render.Place{Peer: l.cfg.Kit.Peer, Own: l.cfg.Own, Dead: map[member.Name]bool{}}
	if l.cfg.View == nil {
		return at
	}
	for _, m := range l.cfg.View.Peers() {
		if m.Name == at.Peer {
			at.Zone = m.Zone
		} else if m.State == member.Dead {
			at.Dead[m.Name] = true
		}
	}
	return at
}

func samePlace(a, b render.Place) bool {
	return a.Peer == b.Peer && a.Zone == b.Zone && maps.Equal(a.Dead, b.Dead)
}

func (l *loop) markAll() {
	all, err := l.services.List(labels.Everything())
	if err != nil {
		l.full = true
		return
	}
	for _, s := range all {
		l.dirty.Add(s.Namespace + "/" + s.Name)
	}
}

// update brings the kernel to the desired state of the dirty services, or of
// all when a full look is due.
func (l *loop) update(ctx context.Context) error {
	full := l.full
	var stale []lb.Front
	if full {
		found, err := l.reset(ctx)
		if err != nil {
			return err
		}
		if l.known {
			stale = found
		}
	}
	ch := lb.Change{}
	var reap []lb.Service
	touched := map[string]map[lb.Front]lb.Service{}
	for key := range l.dirty.Take() {
		want, err := l.render(ctx, key)
		if err != nil {
			l.dirty.Add(key)
			return err
		}
		touched[key] = want
		for f, s := range want {
			l.owner[f] = key
			if l.adopted[f] && !l.settled {
				continue
			}
			if old, ok := l.have[key][f]; !ok || !old.Equal(s) {
				ch.Set = append(ch.Set, s)
				reap = append(reap, s)
			}
		}
	}
	stale = append(stale, l.gone(touched)...)
	if l.settled {
		for _, f := range stale {
			if _, taken := l.owner[f]; !taken {
				ch.Remove = append(ch.Remove, f)
				reap = append(reap, lb.Service{Front: f})
			}
		}
	}
	if err := l.apply(ctx, ch, reap); err != nil {
		return err
	}
	for key, want := range touched {
		if len(want) == 0 {
			delete(l.have, key)
		} else {
			l.have[key] = want
		}
	}
	l.full = false
	return nil
}

// reset forgets what the kernel was told, marks every service, and returns
// the fronts the kernel has.
func (l *loop) reset(ctx context.Context) ([]lb.Front, error) {
	l.cfg.Backend.Forget()
	found, err := l.cfg.Backend.Fronts(ctx)
	if err != nil {
		return nil, fmt.Errorf("list services in the kernel: %w", err)
	}
	// What was already adopted or written by this run while unsettled is
	// not adopted again: only the first look decides.
	if l.adopted == nil {
		l.adopted = map[lb.Front]bool{}
		for _, f := range found {
			l.adopted[f] = true
		}
	}
	// A front that vanished is nobody's to adopt any more.
	for f := range l.adopted {
		if !slices.Contains(found, f) {
			delete(l.adopted, f)
		}
	}
	l.have, l.owner = map[string]map[lb.Front]lb.Service{}, map[lb.Front]string{}
	all, err := l.services.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list services: %w", err)
	}
	for _, s := range all {
		l.dirty.Add(s.Namespace + "/" + s.Name)
	}
	l.dirty.Add(portsKey)
	return found, nil
}

// gone returns the fronts that the touched services had and have no more.
func (l *loop) gone(touched map[string]map[lb.Front]lb.Service) []lb.Front {
	var out []lb.Front
	for key, want := range touched {
		for f := range l.have[key] {
			if _, still := want[f]; still || l.owner[f] != key {
				continue
			}
			delete(l.owner, f)
			out = append(out, f)
		}
	}
	return out
}

func (l *loop) render(ctx context.Context, key string) (map[lb.Front]lb.Service, error) {
	want := map[lb.Front]lb.Service{}
	if key == portsKey {
		ports, _ := l.ports()
		for _, s := range ports {
			want[s.Front] = s
		}
		return want, nil
	}
	namespace, name, _ := strings.Cut(key, "/")
	svc, err := l.services.Services(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		l.health.set(ctx, key, render.Health{}, false)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get service %s: %w", key, err)
	}
	eps, err := component.Slices(l.slices, key)
	if err != nil {
		return nil, err
	}
	check, has := render.HealthOf(svc, eps, l.place)
	l.health.set(ctx, key, check, has)
	for _, s := range render.Service(svc, eps, l.place) {
		want[s.Front] = s
	}
	return want, nil
}

func (l *loop) apply(ctx context.Context, ch lb.Change, reap []lb.Service) error {
	if len(ch.Set) == 0 && len(ch.Remove) == 0 {
		return nil
	}
	// A steady order makes transactions reproducible.
	slices.SortFunc(ch.Set, func(a, b lb.Service) int { return a.Front.Compare(b.Front) })
	slices.SortFunc(ch.Remove, lb.Front.Compare)
	ch.Remove = slices.Compact(ch.Remove)
	if err := l.cfg.Backend.Apply(ctx, ch); err != nil {
		return fmt.Errorf("apply services: %w", err)
	}
	l.log.DebugContext(ctx, "services applied", "set", len(ch.Set), "removed", len(ch.Remove))
	reap = slices.DeleteFunc(reap, func(s lb.Service) bool { return s.Front.Protocol != lb.UDP })
	if len(reap) == 0 {
		return nil
	}
	if err := l.cfg.Backend.Reap(ctx, reap); err != nil {
		return fmt.Errorf("end old flows: %w", err)
	}
	return nil
}

// ports are the services that are the machine's own; with nobody to tell of
// any, it is known that there are none.
func (l *loop) ports() (ports []lb.Service, known bool) {
	if l.cfg.Ports == nil {
		return nil, true
	}
	return l.cfg.Ports.Services()
}

// portsChanged is closed when they change, and nil if they never do.
func (l *loop) portsChanged() <-chan struct{} {
	if l.cfg.Ports == nil {
		return nil
	}
	return l.cfg.Ports.Changed()
}
