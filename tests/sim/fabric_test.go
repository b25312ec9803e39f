package sim_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"skein.dev/skein/api/member"
	"skein.dev/skein/raftstore"
)

// fabric is a network. Like TCP it delays and holds back bytes but neither
// loses nor reorders them; what is cut off is held until the cut is healed.
type fabric struct {
	mu      sync.Mutex // guards the fields below
	rng     *rand.Rand
	latency time.Duration
	ports   map[string]*port // by address
	cut     map[[2]member.ServerID]bool
	changed chan struct{}
}

func newFabric(rng *rand.Rand) *fabric {
	return &fabric{
		rng: rng, latency: 200 * time.Microsecond, ports: map[string]*port{},
		cut: map[[2]member.ServerID]bool{}, changed: make(chan struct{}),
	}
}

func (f *fabric) raiseLocked() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// split cuts each peer in one side from all in the other, both ways or one.
func (f *fabric) split(side, rest []member.ServerID, oneWay bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range side {
		for _, b := range rest {
			f.cut[[2]member.ServerID{a, b}] = true
			f.cut[[2]member.ServerID{b, a}] = !oneWay
		}
	}
	f.raiseLocked()
}

func (f *fabric) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.cut)
	f.raiseLocked()
}

func (f *fabric) setLatency(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.latency = d
}

// network is what one start of a peer uses; down ends it and its connections.
type network struct {
	fabric *fabric
	id     member.ServerID
	mu     sync.Mutex // guards the fields below
	dead   bool
	ports  []*port
	conns  []*wire
}

func (n *network) endpoint(addr string) raftstore.Network {
	p := &port{addr: addr, owner: n, backlog: make(chan *wire, 64), closed: make(chan struct{})}
	n.fabric.mu.Lock()
	n.fabric.ports[addr] = p
	n.fabric.mu.Unlock()
	n.ports = append(n.ports, p)
	kind := addr[len(n.id):]
	return raftstore.Network{Listener: p, Dial: func(ctx context.Context, id member.ServerID, _ string) (net.Conn, error) {
		return n.dial(ctx, id, string(id)+kind)
	}}
}

func (n *network) down() {
	n.mu.Lock()
	n.dead = true
	conns := slices.Clone(n.conns)
	n.mu.Unlock()
	for _, p := range n.ports {
		_ = p.Close()
	}
	for _, c := range conns {
		_ = c.Close()
	}
}

// drop ends all connections; new ones may be made.
func (n *network) drop() {
	n.mu.Lock()
	conns := slices.Clone(n.conns)
	n.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

func (n *network) isDown() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dead
}

func (n *network) adopt(c *wire) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dead {
		_ = c.Close()
	}
	n.conns = append(slices.DeleteFunc(n.conns, func(c *wire) bool { return c.gone() }), c)
}

func (n *network) dial(ctx context.Context, id member.ServerID, addr string) (net.Conn, error) {
	f := n.fabric
	for {
		f.mu.Lock()
		changed, p := f.changed, f.ports[addr]
		blocked := f.cut[[2]member.ServerID{n.id, id}] || f.cut[[2]member.ServerID{id, n.id}]
		f.mu.Unlock()
		if blocked { // like a SYN that is dropped
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-changed:
				continue
			}
		}
		if p == nil || p.isClosed() {
			return nil, errors.New("connection refused")
		}
		ours, theirs := newWire(f, n.id, id), newWire(f, id, n.id)
		ours.peer, theirs.peer = theirs, ours
		select {
		case p.backlog <- theirs:
		default:
			return nil, errors.New("connection refused: backlog")
		}
		n.adopt(ours)
		p.owner.adopt(theirs)
		return ours, nil
	}
}

// port implements [net.Listener].
type port struct {
	addr    string
	owner   *network
	backlog chan *wire
	closed  chan struct{}
	once    sync.Once
}

type simAddr string

func (simAddr) Network() string  { return "sim" }
func (a simAddr) String() string { return string(a) }

func (p *port) Accept() (net.Conn, error) {
	select {
	case c := <-p.backlog:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *port) Addr() net.Addr { return simAddr(p.addr) }
func (p *port) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *port) isClosed() bool {
	select {
	case <-p.closed:
		return true
	default:
		return false
	}
}

// wire is one end of a connection. What was written to the other end waits
// there until its time has come and the way is open.
type wire struct {
	fabric *fabric
	self   member.ServerID
	far    member.ServerID
	peer   *wire

	mu       sync.Mutex // guards the fields below
	in       []packet
	news     chan struct{}
	closed   bool // by us
	eof      bool // by them
	deadline time.Time
}

type packet struct {
	at time.Time
	b  []byte
}

func newWire(f *fabric, self, far member.ServerID) *wire {
	return &wire{fabric: f, self: self, far: far, news: make(chan struct{})}
}

func (w *wire) RemoteServerID() member.ServerID { return w.far }

func (w *wire) raiseLocked() {
	close(w.news)
	w.news = make(chan struct{})
}

func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	closed := w.closed || w.eof
	w.mu.Unlock()
	if closed {
		return 0, io.ErrClosedPipe
	}
	w.fabric.mu.Lock()
	delay := w.fabric.latency/2 + time.Duration(w.fabric.rng.Int64N(int64(w.fabric.latency)))
	w.fabric.mu.Unlock()
	p := w.peer
	p.mu.Lock()
	defer p.mu.Unlock()
	at := time.Now().Add(delay)
	if n := len(p.in); n > 0 && p.in[n-1].at.After(at) {
		at = p.in[n-1].at
	}
	p.in = append(p.in, packet{at: at, b: append([]byte(nil), b...)})
	p.raiseLocked()
	return len(b), nil
}

func (w *wire) Read(b []byte) (int, error) {
	for {
		w.fabric.mu.Lock()
		blocked, changed := w.fabric.cut[[2]member.ServerID{w.far, w.self}], w.fabric.changed
		w.fabric.mu.Unlock()
		w.mu.Lock()
		now := time.Now()
		pause := time.Hour
		switch {
		case w.closed:
			w.mu.Unlock()
			return 0, net.ErrClosed
		case !w.deadline.IsZero() && !now.Before(w.deadline):
			w.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case blocked:
		case len(w.in) > 0 && !w.in[0].at.After(now):
			n := copy(b, w.in[0].b)
			if w.in[0].b = w.in[0].b[n:]; len(w.in[0].b) == 0 {
				w.in = w.in[1:]
			}
			w.mu.Unlock()
			return n, nil
		case len(w.in) > 0:
			pause = w.in[0].at.Sub(now)
		case w.eof:
			w.mu.Unlock()
			return 0, io.EOF
		}
		if !w.deadline.IsZero() {
			pause = min(pause, w.deadline.Sub(now))
		}
		news := w.news
		w.mu.Unlock()
		timer := time.NewTimer(pause)
		select {
		case <-news:
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (w *wire) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	w.raiseLocked()
	w.mu.Unlock()
	w.peer.mu.Lock()
	defer w.peer.mu.Unlock()
	w.peer.eof = true
	w.peer.raiseLocked()
	return nil
}

func (w *wire) gone() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

func (w *wire) LocalAddr() net.Addr  { return simAddr(w.self) }
func (w *wire) RemoteAddr() net.Addr { return simAddr(w.far) }

func (w *wire) SetDeadline(t time.Time) error { return w.SetReadDeadline(t) }

func (w *wire) SetReadDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deadline = t
	w.raiseLocked()
	return nil
}

func (w *wire) SetWriteDeadline(time.Time) error { return nil } // it never blocks
