// Package proxy keeps a peer's kernel in step with the cluster's Services.
//
// Its invariant: before the replica is settled, a front the kernel has is left
// as it is; after that, the kernel has exactly what package render says.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/component"
	"skein.dev/skein/api/member"
	"skein.dev/skein/network/lb"
)

// Backend is the part of a kernel that balances connections. Its methods are
// called by one goroutine at a time.
type Backend interface {
	// Fronts returns what the kernel has now, whoever wrote it.
	Fronts(ctx context.Context) ([]lb.Front, error)
	// Apply makes a change. On error it may be applied in part; applying it
	// again is safe. The change's slices are not kept or written to.
	Apply(ctx context.Context, ch lb.Change) error
	// Reap ends the connectionless flows to the services' fronts that lead
	// to a backend that is none any more.
	Reap(ctx context.Context, services []lb.Service) error
	// Forget says that the kernel may have been changed by somebody else.
	Forget()
	// Watch calls lost when somebody else has removed what Apply wrote. It
	// blocks until ctx ends; lost may be called from any goroutine.
	Watch(ctx context.Context, lost func()) error
	// Clean removes everything Apply ever wrote.
	Clean(ctx context.Context) error
}

// Config is what a Proxy works with. Kit and Backend are needed.
type Config struct {
	Kit     component.Kit
	Backend Backend
	// View tells who lives; nil means everybody.
	View member.View
	// Ports are the machine's ports that lead to its own pods; nil means none.
	Ports *lb.Feed
	// Own are the addresses this peer answers itself: they are not proxied.
	Own []netip.Addr
	// Listen opens the port of a service's health check; by default on all
	// addresses of the machine.
	Listen func(ctx context.Context, port uint16) (net.Listener, error)
}

const (
	retryMin      = 100 * time.Millisecond
	retryMax      = 10 * time.Second
	unsettledPoll = 500 * time.Millisecond
	portsKey      = "host ports" // in place of a service's key, which has no space
)

// Proxy programs the services of the cluster into one peer's kernel.
type Proxy struct {
	cfg      Config
	log      *slog.Logger
	services corelisters.ServiceLister
	slices   cache.Indexer
	synced   []cache.InformerSynced
	dirty    *component.Dirty[string]
}

// New takes its informers from the Kit; it starts nothing.
func New(c Config) (*Proxy, error) {
	if c.Kit.Informers == nil || c.Backend == nil {
		return nil, errors.New("proxy: Kit.Informers and Backend are needed")
	}
	p := &Proxy{cfg: c, log: c.Kit.Log, dirty: component.NewDirty[string]()}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	svc := c.Kit.Informers.Core().V1().Services()
	eps := c.Kit.Informers.Discovery().V1().EndpointSlices().Informer()
	if err := component.IndexSlices(eps); err != nil {
		return nil, err
	}
	p.services, p.slices = svc.Lister(), eps.GetIndexer()
	for _, in := range []struct {
		informer cache.SharedIndexInformer
		key      func(any) string
	}{{svc.Informer(), component.ObjectKey}, {eps, component.ServiceKey}} {
		reg, err := in.informer.AddEventHandler(handler(in.key, p.touch))
		if err != nil {
			return nil, fmt.Errorf("watch services: %w", err)
		}
		p.synced = append(p.synced, reg.HasSynced)
	}
	return p, nil
}

// touch notes that a service changed; it has no key if it is no service's.
func (p *Proxy) touch(key string) {
	if key != "" {
		p.dirty.Add(key)
	}
}

func handler(key func(any) string, add func(string)) cache.ResourceEventHandlerFuncs {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { add(key(o)) },
		UpdateFunc: func(old, o any) {
			before, after := key(old), key(o)
			add(after)
			if before != after {
				add(before)
			}
		},
		DeleteFunc: func(o any) { add(key(o)) },
	}
}

// Run programs services until ctx ends. It begins when the informers have
// synced. What the kernel refuses is logged and tried again.
func (p *Proxy) Run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), p.synced...) {
		return nil
	}
	lost := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() { p.watch(ctx, lost) })
	l := newLoop(p)
	defer l.health.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var members <-chan struct{}
		if p.cfg.View != nil {
			members = p.cfg.View.Changed()
		}
		ports := l.portsChanged()
		again := l.step(ctx)
		timer.Stop()
		if again > 0 {
			timer.Reset(again)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.dirty.Wake():
		case <-members:
		case <-ports:
			p.dirty.Add(portsKey)
		case <-lost:
			p.log.WarnContext(ctx, "services were removed from the kernel by another program, writing them again")
			l.full = true
		case <-timer.C:
		}
	}
}

// watch passes on that the kernel lost the services.
func (p *Proxy) watch(ctx context.Context, lost chan<- struct{}) {
	err := p.cfg.Backend.Watch(ctx, func() {
		select {
		case lost <- struct{}{}:
		default:
		}
	})
	if err != nil && ctx.Err() == nil {
		p.log.WarnContext(ctx, "cannot hear when services are removed from the kernel", "err", err)
	}
}

// Clean removes all services from the kernel.
func (p *Proxy) Clean(ctx context.Context) error {
	if err := p.cfg.Backend.Clean(ctx); err != nil {
		return fmt.Errorf("clean services: %w", err)
	}
	return nil
}
