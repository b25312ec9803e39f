package lbtest

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"skein.dev/skein/network/lb"
)

// Kernel is a make-believe kernel with pods around it: it keeps what adapters
// wrote and sends connections where a kernel would. Its zero value is an IPv4
// world. It is safe for concurrent use.
type Kernel struct {
	V6 bool

	mu       sync.Mutex // guards the fields below
	services map[lb.Front]lb.Service
	clients  map[client]netip.AddrPort // affinity
	flows    map[*int]netip.AddrPort   // UDP flows by their socket
	fail     error
	lost     []func() // watchers
	writes   int
}

type client struct {
	front lb.Front
	addr  netip.Addr
}

// Fake is an adapter on a Kernel.
type Fake struct{ k *Kernel }

// Open returns a new adapter on the kernel.
func (k *Kernel) Open(*testing.T) Backend { return &Fake{k} }

// Services returns what the kernel has, sorted by front.
func (k *Kernel) Services() []lb.Service {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.SortedFunc(maps.Values(k.services), func(a, b lb.Service) int { return a.Front.Compare(b.Front) })
}

// Writes returns how many fronts have been written or removed so far.
func (k *Kernel) Writes() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.writes
}

// Fail makes every further write fail with err, until it is nil.
func (k *Kernel) Fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail = err
}

// Fronts implements [Backend].
func (f *Fake) Fronts(context.Context) ([]lb.Front, error) {
	f.k.mu.Lock()
	defer f.k.mu.Unlock()
	return slices.SortedFunc(maps.Keys(f.k.services), lb.Front.Compare), nil
}

// Apply implements [Backend].
func (f *Fake) Apply(_ context.Context, ch lb.Change) error {
	for _, s := range ch.Set {
		if err := s.Validate(); err != nil {
			return err
		}
	}
	k := f.k
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		return k.fail
	}
	if k.services == nil {
		k.services = map[lb.Front]lb.Service{}
		k.clients = map[client]netip.AddrPort{}
		k.flows = map[*int]netip.AddrPort{}
	}
	for _, fr := range ch.Remove {
		k.writes++
		delete(k.services, fr)
	}
	for _, s := range ch.Set {
		k.writes++
		s.Backends = slices.Clone(s.Backends)
		k.services[s.Front] = s
		for c, at := range k.clients {
			if c.front == s.Front && !slices.Contains(s.Backends, at) {
				delete(k.clients, c)
			}
		}
	}
	return nil
}

// Reap implements [Backend].
func (f *Fake) Reap(_ context.Context, services []lb.Service) error {
	f.k.mu.Lock()
	defer f.k.mu.Unlock()
	for _, s := range services {
		for flow, at := range f.k.flows {
			if s.Front.Protocol == lb.UDP && !slices.Contains(s.Backends, at) {
				delete(f.k.flows, flow)
			}
		}
	}
	return nil
}

// Forget implements [Backend]; the fake remembers nothing of its own.
func (f *Fake) Forget() {}

// Watch implements [Backend].
func (f *Fake) Watch(ctx context.Context, lost func()) error {
	f.k.mu.Lock()
	f.k.lost = append(f.k.lost, lost)
	f.k.mu.Unlock()
	<-ctx.Done()
	return nil
}

// Flush implements [World].
func (k *Kernel) Flush(*testing.T) {
	k.mu.Lock()
	k.services = nil
	lost := slices.Clone(k.lost)
	k.mu.Unlock()
	for _, f := range lost {
		f()
	}
}

// Clean implements [Backend].
func (f *Fake) Clean(context.Context) error {
	f.k.mu.Lock()
	defer f.k.mu.Unlock()
	f.k.services = nil
	return nil
}

// Server implements [World].
func (k *Kernel) Server(i int) netip.AddrPort {
	return netip.AddrPortFrom(k.Address(From(i)), 8080)
}

// Address implements [World].
func (k *Kernel) Address(from From) netip.Addr {
	if k.V6 {
		return netip.MustParseAddr(fmt.Sprintf("fd09::%d", int(from)+10))
	}
	return netip.MustParseAddr(fmt.Sprintf("10.9.0.%d", int(from)+10))
}

// Dial implements [World].
func (k *Kernel) Dial(t *testing.T, from From, to lb.Front) (Reply, error) {
	t.Helper()
	return k.Flow(t, from, to)()
}

// Flow implements [World].
func (k *Kernel) Flow(_ *testing.T, from From, to lb.Front) func() (Reply, error) {
	flow := new(int)
	return func() (Reply, error) {
		k.mu.Lock()
		defer k.mu.Unlock()
		at, source, err := k.routeLocked(from, to, flow)
		if err != nil {
			return Reply{}, err
		}
		for i := range Servers {
			if k.Server(i) == at {
				return Reply{Server: at, Source: source}, nil
			}
		}
		return Reply{}, ErrRefused // a host without that port open
	}
}

// routeLocked finds where a packet goes and from whom it seems to come.
func (k *Kernel) routeLocked(from From, to lb.Front, flow *int) (netip.AddrPort, netip.Addr, error) {
	source := k.Address(from)
	s, ok := k.services[to]
	if !ok && to.Addr == k.Address(Host) {
		node := to
		node.Addr = netip.IPv4Unspecified()
		if k.V6 {
			node.Addr = netip.IPv6Unspecified()
		}
		s, ok = k.services[node]
	}
	if known, old := k.flows[flow]; old {
		return known, source, nil
	}
	switch {
	case !ok:
		return netip.AddrPort{}, source, ErrSilent
	case len(s.Backends) == 0 && s.Drop:
		return netip.AddrPort{}, source, ErrSilent
	case len(s.Backends) == 0:
		return netip.AddrPort{}, source, ErrRefused
	}
	at := s.Backends[rand.IntN(len(s.Backends))]
	if s.Affinity > 0 {
		c := client{s.Front, source}
		if known, sticks := k.clients[c]; sticks {
			at = known
		}
		k.clients[c] = at
	}
	if to.Protocol == lb.UDP {
		k.flows[flow] = at
	}
	if s.Masquerade || at.Addr() == source {
		source = k.Address(Host)
	}
	return at, source, nil
}
