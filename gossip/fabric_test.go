package gossip_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"skein.dev/skein/api/member"
	"skein.dev/skein/gossip"
)

// fabric is a network in memory that works inside a synctest bubble: packets
// are lost rather than waited for, and faults are set from outside.
type fabric struct {
	mu    sync.Mutex // guards the fields below
	rand  *rand.Rand
	hosts map[netip.AddrPort]*host
	group map[netip.AddrPort]int // hosts of different groups do not reach each other
	loss  float64                // of packets
}

// host is one machine on the fabric.
type host struct {
	f       *fabric
	addr    netip.AddrPort
	packets chan packet
	streams chan net.Conn
	closed  chan struct{}
	once    sync.Once
	// state is guarded by the fabric's mu.
	state hostState
}

type hostState int

const (
	up        hostState = iota
	daemonOff           // the guard answers
	frozen              // packets and connections are swallowed, as by a stopped process
	off                 // nobody answers
)

type packet struct {
	data []byte
	from netip.AddrPort
}

func newFabric(seed int64) *fabric {
	return &fabric{
		rand: rand.New(rand.NewSource(seed)), hosts: make(map[netip.AddrPort]*host), group: make(map[netip.AddrPort]int),
	}
}

func (f *fabric) host(i int) *host {
	h := &host{
		f: f, addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 0, byte(10 + i)}), 6443),
		packets: make(chan packet, 256), streams: make(chan net.Conn, 16), closed: make(chan struct{}),
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hosts[h.addr] = h
	return h
}

// reach returns the host at addr if a packet from h gets there.
func (f *fabric) reach(h *host, addr netip.AddrPort) *host {
	f.mu.Lock()
	defer f.mu.Unlock()
	to := f.hosts[addr]
	if to == nil || h.state != up || to.state != up || f.group[h.addr] != f.group[addr] {
		return nil
	}
	return to
}

func (f *fabric) set(h *host, s hostState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h.state = s
}

func (f *fabric) split(groups ...[]*host) {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.group)
	for i, g := range groups {
		for _, h := range g {
			f.group[h.addr] = i
		}
	}
}

func (f *fabric) lost() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rand.Float64() < f.loss
}

// ReadFrom implements net.PacketConn, as far as gossip uses it.
func (h *host) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-h.packets:
		return copy(b, p.data), net.UDPAddrFromAddrPort(p.from), nil
	case <-h.closed:
		return 0, nil, net.ErrClosed
	}
}

// WriteTo implements net.PacketConn.
func (h *host) WriteTo(b []byte, to net.Addr) (int, error) {
	if q := h.f.reach(h, to.(*net.UDPAddr).AddrPort()); q != nil && !h.f.lost() {
		select {
		case q.packets <- packet{append([]byte(nil), b...), h.addr}:
		default:
		}
	}
	return len(b), nil
}

// Close implements net.PacketConn and net.Listener.
func (h *host) Close() error {
	h.once.Do(func() {
		close(h.closed)
		for {
			select {
			case c := <-h.streams:
				_ = c.Close()
			default:
				return
			}
		}
	})
	return nil
}

// LocalAddr implements net.PacketConn.
func (h *host) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(h.addr) }

func (h *host) SetDeadline(time.Time) error      { return nil }
func (h *host) SetReadDeadline(time.Time) error  { return nil }
func (h *host) SetWriteDeadline(time.Time) error { return nil }

// Accept implements net.Listener.
func (h *host) Accept() (net.Conn, error) {
	select {
	case c := <-h.streams:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (h *host) Addr() net.Addr { return net.TCPAddrFromAddrPort(h.addr) }

var errRefused = errors.New("connection refused")

// Dial implements gossip.Dialer: a machine that is there refuses at once, one
// that is cut off or gone lets the caller wait.
func (h *host) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	q := h.f.reach(h, addr)
	if q == nil {
		if h.f.refuses(h, addr) {
			return nil, errRefused
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	a, b := net.Pipe()
	select {
	case q.streams <- b:
		return a, nil
	case <-q.closed:
		return nil, errRefused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (f *fabric) refuses(h *host, addr netip.AddrPort) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	to := f.hosts[addr]
	return to != nil && h.state == up && to.state == daemonOff && f.group[h.addr] == f.group[addr]
}

// ProbeDaemon implements gossip.Prober.
func (h *host) ProbeDaemon(ctx context.Context, m gossip.Member) error {
	addr := netip.AddrPortFrom(m.Addresses[0], m.Port)
	if h.f.reach(h, addr) != nil {
		return nil
	}
	if h.f.refuses(h, addr) {
		return errRefused
	}
	<-ctx.Done()
	return ctx.Err()
}

// ProbeGuard implements gossip.Prober.
func (h *host) ProbeGuard(ctx context.Context, m gossip.Member) error {
	h.f.mu.Lock()
	to := h.f.hosts[netip.AddrPortFrom(m.Addresses[0], m.Port)]
	ok := to != nil && h.state == up && (to.state == up || to.state == daemonOff) && h.f.group[h.addr] == h.f.group[to.addr]
	h.f.mu.Unlock()
	if ok {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

// mesh is some pools on a fabric.
type mesh struct {
	t     *testing.T
	f     *fabric
	hosts []*host
	pools []*gossip.Pool
	stop  []func()
}

func describe(i int, h *host) gossip.Member {
	return gossip.Member{
		Name: member.Name(fmt.Sprintf("n%d", i+1)), ServerID: member.ServerID(fmt.Sprintf("srv-%d", i+1)),
		Addresses: []netip.Addr{h.addr.Addr()}, Port: h.addr.Port(), Version: "v1",
	}
}

func newMesh(t *testing.T, n int, seed int64) *mesh {
	t.Helper()
	m := &mesh{t: t, f: newFabric(seed)}
	for i := range n {
		m.hosts = append(m.hosts, m.f.host(i))
		m.pools = append(m.pools, nil)
		m.stop = append(m.stop, nil)
	}
	for i := range n {
		m.start(i)
	}
	return m
}

func (m *mesh) records() []gossip.Member {
	var all []gossip.Member
	for i, h := range m.hosts {
		all = append(all, describe(i, h))
	}
	return all
}

// start runs the daemon of host i, again if it ran before.
func (m *mesh) start(i int) {
	m.t.Helper()
	old := m.hosts[i]
	h := m.f.host(i) // fresh sockets
	m.f.mu.Lock()
	m.f.group[h.addr] = m.f.group[old.addr]
	m.f.mu.Unlock()
	m.hosts[i] = h
	p, err := gossip.New(gossip.Config{
		Self: describe(i, h), Keys: [][]byte{[]byte("0123456789abcdef0123456789abcdef")}, Mesh: "test",
		Packets: h, Streams: h, Dialer: h, Prober: h, Records: m.records(),
	})
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(m.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := p.Run(ctx); err != nil {
			m.t.Error(err)
		}
	})
	m.pools[i] = p
	m.stop[i] = func() { cancel(); wg.Wait() }
}

func (m *mesh) stopAll() {
	for _, stop := range m.stop {
		stop()
	}
	time.Sleep(10 * time.Second) // memberlist's own stragglers
}

func (m *mesh) state(of, seenBy int) member.State {
	for _, p := range m.pools[seenBy].Peers() {
		if p.Name == describe(of, m.hosts[of]).Name {
			return p.State
		}
	}
	return ""
}

// await waits until the peers in seenBy agree that of is in state want and
// returns how long that took, or fails after limit.
func (m *mesh) await(of int, want member.State, limit time.Duration, seenBy ...int) time.Duration {
	m.t.Helper()
	begin := time.Now()
	for {
		agreed := true
		for _, by := range seenBy {
			agreed = agreed && m.state(of, by) == want
		}
		if agreed {
			return time.Since(begin)
		}
		if time.Since(begin) > limit {
			for _, by := range seenBy {
				m.t.Errorf("n%d sees n%d as %s", by+1, of+1, m.state(of, by))
			}
			m.t.Fatalf("n%d is not %s for all after %v", of+1, want, limit)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (m *mesh) awaitAllAlive(limit time.Duration) {
	m.t.Helper()
	var all []int
	for i := range m.hosts {
		all = append(all, i)
	}
	for i := range m.hosts {
		m.await(i, member.Alive, limit, all...)
	}
}

func others(n, but int) []int {
	var out []int
	for i := range n {
		if i != but {
			out = append(out, i)
		}
	}
	return out
}
