// Package lbtest holds what every kernel adapter for services must do, as a
// suite of tests, and a fake that passes it.
//
// Its invariant: the suite judges by where connections arrive, never by what
// an adapter wrote.
package lbtest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"skein.dev/skein/network/lb"
)

// Backend is the adapter under test, as package proxy uses it.
type Backend interface {
	Fronts(ctx context.Context) ([]lb.Front, error)
	Apply(ctx context.Context, ch lb.Change) error
	Reap(ctx context.Context, services []lb.Service) error
	Forget()
	Watch(ctx context.Context, lost func()) error
	Clean(ctx context.Context) error
}

// From is who opens a connection.
type From int

// The places connections are opened from; 0 to Servers-1 is a server's own.
const (
	Client From = -1 // a pod that is no backend
	Host   From = -2 // the machine itself
)

// Servers is how many servers a world has.
const Servers = 3

// Reply is what a server says of a connection.
type Reply struct {
	Server netip.AddrPort // the server's own address and port
	Source netip.Addr     // the client as the server sees it
}

// How a connection that is not answered ends.
var (
	ErrRefused = errors.New("connection refused")
	ErrSilent  = errors.New("no answer")
)

// World is a kernel with pods around it.
type World interface {
	// Open returns a new adapter on the kernel, as after a restart.
	Open(t *testing.T) Backend
	// Server is the address server i listens on, TCP and UDP.
	Server(i int) netip.AddrPort
	// Address is the place's own address.
	Address(from From) netip.Addr
	// Dial opens a connection and returns what the server says.
	Dial(t *testing.T, from From, to lb.Front) (Reply, error)
	// Flush removes all that any adapter wrote, behind their backs.
	Flush(t *testing.T)
	// Flow returns a function that asks again and again from one UDP port.
	Flow(t *testing.T, from From, to lb.Front) func() (Reply, error)
}

// suite is one run over one world.
type suite struct {
	World
	Backend
	vip netip.Addr
}

func (s *suite) front(p lb.Protocol, port uint16) lb.Front {
	return lb.Front{Addr: s.vip, Protocol: p, Port: port}
}

func (s *suite) servers(which ...int) []netip.AddrPort {
	var out []netip.AddrPort
	for _, i := range which {
		out = append(out, s.Server(i))
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return out
}

func (s *suite) set(t *testing.T, services ...lb.Service) {
	t.Helper()
	if err := s.Apply(t.Context(), lb.Change{Set: services}); err != nil {
		t.Fatal(err)
	}
}

// arrive opens connections and counts where they arrive.
func (s *suite) arrive(t *testing.T, n int, from From, to lb.Front) map[netip.AddrPort]int {
	t.Helper()
	got := map[netip.AddrPort]int{}
	for range n {
		r, err := s.Dial(t, from, to)
		if err != nil {
			t.Fatalf("connect to %s: %v", to, err)
		}
		got[r.Server]++
	}
	return got
}

func (s *suite) fails(t *testing.T, from From, to lb.Front, want error) {
	t.Helper()
	if r, err := s.Dial(t, from, to); !errors.Is(err, want) {
		t.Errorf("connect to %s: got %v, %v; want %v", to, r, err, want)
	}
}

// Run runs the suite; vip is an address for services that leads nowhere in
// the worlds that make returns, of the family they speak.
func Run(t *testing.T, vip netip.Addr, make func(t *testing.T) World) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(*testing.T, *suite)
	}{
		{"connections are spread over all backends", spread},
		{"the machine itself reaches a service", fromHost},
		{"a service without backends refuses", refuses},
		{"a service with backends elsewhere only is silent", drops},
		{"changes reach the next connection", changes},
		{"a backend reaches itself through its service", hairpin},
		{"a client stays with its backend", sticks},
		{"a node port leads to backends and hides the client", nodePort},
		{"what an earlier run left is found, kept and replaced", restart},
		{"a thousand services and a thousand backends", many},
		{"flows to a gone backend are ended", reaps},
		{"nonsense is refused whole", nonsense},
		{"applying twice is the same as once", twice},
		{"clean leaves nothing", cleans},
		{"who removes everything is noticed", watches},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := make(t)
			c.test(t, &suite{World: w, Backend: w.Open(t), vip: vip})
		})
	}
}

func spread(t *testing.T, s *suite) {
	t.Helper()
	for _, p := range []lb.Protocol{lb.TCP, lb.UDP} {
		f := s.front(p, 80)
		s.set(t, lb.Service{Front: f, Name: "ns/a", Backends: s.servers(0, 1, 2)})
		got := s.arrive(t, 60, Client, f)
		for i := range Servers {
			// Of 60 draws among 3, fewer than 4 happen once in 10⁵ runs.
			if n := got[s.Server(i)]; n < 4 {
				t.Errorf("%s: server %d got %d of 60 connections: %v", p, i, n, got)
			}
		}
	}
	if r, err := s.Dial(t, Client, s.front(lb.TCP, 80)); err != nil || r.Source != s.Address(Client) {
		t.Errorf("the server saw %v, %v; want the client's own address", r, err)
	}
}

func fromHost(t *testing.T, s *suite) {
	t.Helper()
	f := s.front(lb.TCP, 80)
	s.set(t, lb.Service{Front: f, Name: "ns/a", Backends: s.servers(0)})
	s.arrive(t, 2, Host, f)
}

func refuses(t *testing.T, s *suite) {
	t.Helper()
	for _, p := range []lb.Protocol{lb.TCP, lb.UDP} {
		f := s.front(p, 80)
		s.set(t, lb.Service{Front: f, Name: "ns/a"})
		s.fails(t, Client, f, ErrRefused)
		s.fails(t, Host, f, ErrRefused)
		svc := lb.Service{Front: f, Name: "ns/a", Backends: s.servers(1)}
		s.set(t, svc)
		if err := s.Reap(t.Context(), []lb.Service{svc}); err != nil {
			t.Fatal(err)
		}
		s.arrive(t, 1, Client, f)
		s.arrive(t, 1, Host, f)
		s.set(t, lb.Service{Front: f, Name: "ns/a"})
		s.fails(t, Client, f, ErrRefused)
	}
}

func drops(t *testing.T, s *suite) {
	t.Helper()
	f := s.front(lb.TCP, 80)
	s.set(t, lb.Service{Front: f, Name: "ns/a", Drop: true})
	s.fails(t, Client, f, ErrSilent)
}

func changes(t *testing.T, s *suite) {
	t.Helper()
	f, other := s.front(lb.TCP, 80), s.front(lb.TCP, 81)
	s.set(t, lb.Service{Front: f, Name: "ns/a", Backends: s.servers(0)}, lb.Service{Front: other, Name: "ns/b", Backends: s.servers(2)})
	if got := s.arrive(t, 3, Client, f); got[s.Server(0)] != 3 {
		t.Errorf("one backend: got %v", got)
	}
	s.set(t, lb.Service{Front: f, Name: "ns/a", Backends: s.servers(1)})
	if got := s.arrive(t, 3, Client, f); got[s.Server(1)] != 3 {
		t.Errorf("replaced: got %v", got)
	}
	if err := s.Apply(t.Context(), lb.Change{Remove: []lb.Front{f}}); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Dial(t, Client, f); err == nil {
		t.Errorf("removed: still answered by %v", r)
	}
	if got := s.arrive(t, 3, Client, other); got[s.Server(2)] != 3 {
		t.Errorf("the other service: got %v", got)
	}
	// A front that passes from one service to the next in one change.
	if err := s.Apply(t.Context(), lb.Change{Remove: []lb.Front{other}}); err != nil {
		t.Fatal(err)
	}
	s.set(t, lb.Service{Front: other, Name: "ns/c", Backends: s.servers(0)})
	s.arrive(t, 1, Client, other)
}

func hairpin(t *testing.T, s *suite) {
	t.Helper()
	f := s.front(lb.TCP, 80)
	s.set(t, lb.Service{Front: f, Name: "ns/a", Backends: s.servers(1)})
	s.arrive(t, 3, From(1), f)
	s.arrive(t, 1, From(0), f)
	s.set(t, lb.Service{Front: f, Name: "ns/a", Backends: s.servers(0, 1)})
	s.arrive(t, 8, From(0), f)
}

func sticks(t *testing.T, s *suite) {
	t.Helper()
	f := s.front(lb.TCP, 80)
	svc := lb.Service{Front: f, Name: "ns/a", Backends: s.servers(0, 1, 2), Affinity: time.Hour}
	s.set(t, svc)
	got := s.arrive(t, 12, Client, f)
	if len(got) != 1 {
		t.Fatalf("the client wandered: %v", got)
	}
	var first netip.AddrPort
	for first = range got {
	}
	svc.Backends = slices.DeleteFunc(s.servers(0, 1, 2), func(a netip.AddrPort) bool { return a == first })
	s.set(t, svc)
	got = s.arrive(t, 12, Client, f)
	if len(got) != 1 || got[first] != 0 {
		t.Errorf("after its backend %s went: %v", first, got)
	}
	svc.Affinity = 0
	s.set(t, svc)
	if got = s.arrive(t, 40, Client, f); len(got) != 2 {
		t.Errorf("without affinity: %v", got)
	}
	if err := s.Apply(t.Context(), lb.Change{Remove: []lb.Front{f}}); err != nil {
		t.Fatal(err)
	}
}

func nodePort(t *testing.T, s *suite) {
	t.Helper()
	all := netip.IPv4Unspecified()
	if s.vip.Is6() {
		all = netip.IPv6Unspecified()
	}
	f := lb.Front{Addr: all, Protocol: lb.TCP, Port: 30080}
	s.set(t, lb.Service{Front: f, Name: "ns/a", Backends: s.servers(0), Masquerade: true})
	at := lb.Front{Addr: s.Address(Host), Protocol: lb.TCP, Port: 30080}
	r, err := s.Dial(t, Client, at)
	if err != nil || r.Server != s.Server(0) || r.Source == s.Address(Client) {
		t.Errorf("got %v, %v; want server 0, which does not see the client", r, err)
	}
	if r, err := s.Dial(t, Client, s.front(lb.TCP, 30080)); err == nil {
		t.Errorf("the port answers on an address that is not the machine's: %v", r)
	}
	fronts, err := s.Fronts(t.Context())
	if err != nil || !slices.Equal(fronts, []lb.Front{f}) {
		t.Errorf("fronts: got %v, %v; want %v", fronts, err, f)
	}
	if err := s.Apply(t.Context(), lb.Change{Remove: []lb.Front{f}}); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Dial(t, Client, at); err == nil {
		t.Errorf("removed: still answered by %v", r)
	}
}

func restart(t *testing.T, s *suite) {
	t.Helper()
	a, b, c := s.front(lb.TCP, 80), s.front(lb.TCP, 81), s.front(lb.UDP, 80)
	s.set(t,
		lb.Service{Front: a, Name: "ns/a", Backends: s.servers(0), Affinity: time.Hour},
		lb.Service{Front: b, Name: "ns/b", Backends: s.servers(1)},
		lb.Service{Front: c, Name: "ns/c"})
	s.Backend = s.Open(t)
	s.arrive(t, 1, Client, a)
	fronts, err := s.Fronts(t.Context())
	slices.SortFunc(fronts, lb.Front.Compare)
	if want := []lb.Front{a, c, b}; err != nil || !slices.Equal(fronts, want) {
		t.Fatalf("fronts: got %v, %v; want %v", fronts, err, want)
	}
	s.set(t, lb.Service{Front: a, Name: "ns/a", Backends: s.servers(2)})
	if got := s.arrive(t, 3, Client, a); got[s.Server(2)] != 3 {
		t.Errorf("replaced after a restart: %v", got)
	}
	s.arrive(t, 1, Client, b)
	if err := s.Apply(t.Context(), lb.Change{Remove: []lb.Front{b, c}}); err != nil {
		t.Fatal(err)
	}
	if fronts, err = s.Fronts(t.Context()); err != nil || !slices.Equal(fronts, []lb.Front{a}) {
		t.Errorf("fronts in the end: %v, %v", fronts, err)
	}
}

func many(t *testing.T, s *suite) {
	t.Helper()
	var all []lb.Service
	for i := range 1200 {
		all = append(all, lb.Service{Front: s.front(lb.TCP, uint16(1000+i)), Name: fmt.Sprintf("ns/s%d", i), Backends: s.servers(i%Servers, (i+1)%Servers)})
	}
	s.set(t, all...)
	s.arrive(t, 3, Client, all[0].Front)
	s.arrive(t, 3, Client, all[1199].Front)
	// The real servers stand among a thousand that never answer; only the
	// ends of the list are asked for by the draw's arithmetic, so see that
	// the kernel takes it, and that it shrinks again.
	var crowd []netip.AddrPort
	a := s.Server(0).Addr()
	for i := range 1300 {
		crowd = append(crowd, netip.AddrPortFrom(a, uint16(20000+i)))
	}
	f := s.front(lb.TCP, 80)
	s.set(t, lb.Service{Front: f, Name: "ns/crowd", Backends: crowd})
	s.fails(t, Client, f, ErrRefused)
	s.set(t, lb.Service{Front: f, Name: "ns/crowd", Backends: s.servers(0)})
	s.arrive(t, 3, Client, f)
	var gone []lb.Front
	for _, x := range all {
		gone = append(gone, x.Front)
	}
	if err := s.Apply(t.Context(), lb.Change{Remove: gone}); err != nil {
		t.Fatal(err)
	}
	if fronts, err := s.Fronts(t.Context()); err != nil || len(fronts) != 1 {
		t.Errorf("fronts in the end: %d, %v", len(fronts), err)
	}
}

func reaps(t *testing.T, s *suite) {
	t.Helper()
	f := s.front(lb.UDP, 53)
	svc := lb.Service{Front: f, Name: "ns/dns", Backends: s.servers(0)}
	s.set(t, svc)
	ask := s.Flow(t, Client, f)
	if r, err := ask(); err != nil || r.Server != s.Server(0) {
		t.Fatalf("got %v, %v", r, err)
	}
	svc.Backends = s.servers(0, 1)
	s.set(t, svc)
	if err := s.Reap(t.Context(), []lb.Service{svc}); err != nil {
		t.Fatal(err)
	}
	if r, err := ask(); err != nil || r.Server != s.Server(0) {
		t.Errorf("a flow whose backend lives was moved: %v, %v", r, err)
	}
	svc.Backends = s.servers(1)
	s.set(t, svc)
	if err := s.Reap(t.Context(), []lb.Service{svc}); err != nil {
		t.Fatal(err)
	}
	if r, err := ask(); err != nil || r.Server != s.Server(1) {
		t.Errorf("got %v, %v; want server 1", r, err)
	}
}

func nonsense(t *testing.T, s *suite) {
	t.Helper()
	good := lb.Service{Front: s.front(lb.TCP, 80), Name: "ns/good", Backends: s.servers(0)}
	wrong := netip.MustParseAddrPort("[2001:db8::1]:80")
	if s.vip.Is6() {
		wrong = netip.MustParseAddrPort("192.0.2.1:80")
	}
	for _, bad := range []lb.Service{
		{Front: s.front(lb.TCP, 0), Name: "ns/no-port"},
		{Front: s.front(lb.TCP, 81), Name: "ns/mixed", Backends: []netip.AddrPort{wrong}},
		{Front: s.front(lb.TCP, 82), Name: "ns/double", Backends: append(s.servers(0), s.servers(0)...)},
	} {
		if err := s.Apply(t.Context(), lb.Change{Set: []lb.Service{good, bad}}); err == nil {
			t.Errorf("%s was taken", bad.Name)
		}
	}
	if fronts, err := s.Fronts(t.Context()); err != nil || len(fronts) != 0 {
		t.Errorf("fronts: %v, %v", fronts, err)
	}
}

func twice(t *testing.T, s *suite) {
	t.Helper()
	f := s.front(lb.TCP, 80)
	ch := lb.Change{
		Set:    []lb.Service{{Front: f, Name: "ns/a", Backends: s.servers(0, 1), Affinity: time.Minute}},
		Remove: []lb.Front{s.front(lb.TCP, 99)},
	}
	for range 3 {
		if err := s.Apply(t.Context(), ch); err != nil {
			t.Fatal(err)
		}
		s.Forget()
	}
	s.arrive(t, 2, Client, f)
	for range 2 {
		if err := s.Apply(t.Context(), lb.Change{Remove: []lb.Front{f}}); err != nil {
			t.Fatal(err)
		}
	}
}

func cleans(t *testing.T, s *suite) {
	t.Helper()
	f := s.front(lb.TCP, 80)
	s.set(t, lb.Service{Front: f, Name: "ns/a", Backends: s.servers(0)})
	for range 2 {
		if err := s.Clean(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if fronts, err := s.Fronts(t.Context()); err != nil || len(fronts) != 0 {
		t.Errorf("fronts: %v, %v", fronts, err)
	}
	s.set(t, lb.Service{Front: f, Name: "ns/a", Backends: s.servers(0)})
	s.arrive(t, 1, Client, f)
}

func watches(t *testing.T, s *suite) {
	t.Helper()
	f := s.front(lb.TCP, 80)
	svc := lb.Service{Front: f, Name: "ns/a", Backends: s.servers(0)}
	s.set(t, svc)
	ctx, cancel := context.WithCancel(t.Context())
	lost, done := make(chan struct{}, 8), make(chan error, 1)
	go func() { done <- s.Watch(ctx, func() { lost <- struct{}{} }) }()
	// Watching begins some time after the call: until then flush again.
	for seen := false; !seen; {
		s.Flush(t)
		select {
		case <-lost:
			seen = true
		case <-time.After(time.Second):
			s.Forget()
			s.set(t, svc)
		}
	}
	s.Forget()
	s.set(t, svc)
	s.arrive(t, 1, Client, f)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("watch ended with %v", err)
	}
}
