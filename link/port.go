package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

// Config says where a Port listens and whom it admits.
type Config struct {
	// Address is host:port; empty means port 6443 on all addresses.
	Address string
	Credentials
	// Protocols are those that are served here; others of the mesh are
	// refused. Empty means Raft, Peer and Gossip.
	Protocols []Protocol
	// Timeout bounds the greeting of a connection and, again, the handshake
	// of a peer; 0 means 5 s.
	Timeout time.Duration
	// Greetings is how many connections may be in their greeting at a time;
	// beyond it the one that has dawdled longest is closed. 0 means 1024.
	Greetings int
	// Log may be nil.
	Log *slog.Logger
}

const (
	apiBacklog     = 1024
	peerBacklog    = 128
	peerHandshakes = 256
)

// Port is the open port. Its listeners yield connections while Run runs.
type Port struct {
	cfg       Config
	ln        net.Listener
	api       *queue
	peers     map[Protocol]*queue
	names     []string
	greeting  *waiters
	handshake *waiters
}

// Open binds the port. Connections wait in the kernel until Run.
func Open(ctx context.Context, cfg Config) (*Port, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Address == "" {
		cfg.Address = fmt.Sprintf(":%d", DefaultPort)
	}
	if len(cfg.Protocols) == 0 {
		cfg.Protocols = []Protocol{Raft, Peer, Gossip}
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.Greetings == 0 {
		cfg.Greetings = 1024
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", cfg.Address)
	if err != nil {
		return nil, listenError("tcp", cfg.Address, err)
	}
	return newPort(cfg, ln), nil
}

func newPort(cfg Config, ln net.Listener) *Port {
	p := &Port{
		cfg: cfg, ln: ln,
		api:       newQueue(ln.Addr(), apiBacklog),
		peers:     make(map[Protocol]*queue),
		greeting:  newWaiters(cfg.Greetings),
		handshake: newWaiters(peerHandshakes),
	}
	for _, proto := range cfg.Protocols {
		p.peers[proto] = newQueue(ln.Addr(), peerBacklog)
		p.names = append(p.names, string(proto))
	}
	return p
}

// Addr is where the port listens.
func (p *Port) Addr() net.Addr { return p.ln.Addr() }

// API yields the connections of API clients before their TLS handshake: what
// the client has sent so far is read again. Closing it refuses such clients.
func (p *Port) API() net.Listener { return p.api }

// Listener yields the established links of proto, each a *Conn. It panics if
// proto is not among the port's protocols, which is a mistake in the wiring.
func (p *Port) Listener(proto Protocol) net.Listener {
	q, ok := p.peers[proto]
	if !ok {
		panic("link: protocol " + string(proto) + " is not served by this port")
	}
	return q
}

// Close closes the port and all its listeners; established connections live on.
func (p *Port) Close() error {
	err := p.ln.Close()
	_ = p.api.Close() // a queue's Close cannot fail
	for _, q := range p.peers {
		_ = q.Close()
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close port: %w", err)
	}
	return nil
}

// Run accepts connections until ctx ends, then closes the port. Connections
// still in their greeting or handshake are closed.
func (p *Port) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	stop := context.AfterFunc(ctx, func() { _ = p.Close() })
	defer stop()
	err := p.accept(ctx, &wg)
	cancel()
	_ = p.Close()
	p.greeting.closeAll()
	p.handshake.closeAll()
	wg.Wait()
	return err
}

func (p *Port) accept(ctx context.Context, wg *sync.WaitGroup) error {
	for {
		c, err := p.ln.Accept()
		if err == nil {
			// Here and not in its goroutine: who gives way is who came first.
			leave := p.greeting.enter(c)
			wg.Go(func() { p.serve(ctx, c, leave) })
			continue
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the listener was closed because ctx has ended
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept on %s: %w", p.ln.Addr(), err)
		}
		// Out of files or the client is gone already: both pass.
		p.cfg.Log.WarnContext(ctx, "accept connection", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// serve sorts one connection, which leave takes out of its greeting. Its own
// goroutine ends when the connection has been handed over.
func (p *Port) serve(ctx context.Context, c net.Conn, leave func()) {
	offered, replay, err := peek(c, time.Now().Add(p.cfg.Timeout))
	leave()
	if err != nil {
		_ = c.Close()
		return
	}
	if !isPeerProtocol(offered) {
		if !p.api.push(replay) {
			p.cfg.Log.WarnContext(ctx, "api backlog is full", "remote", c.RemoteAddr())
			_ = c.Close()
		}
		return
	}
	leave = p.handshake.enter(c)
	defer leave()
	if err := p.servePeer(ctx, replay); err != nil {
		_ = c.Close()
		if ctx.Err() == nil {
			p.cfg.Log.DebugContext(ctx, "peer link refused", "remote", c.RemoteAddr(), "error", err)
		}
	}
}

func (p *Port) servePeer(ctx context.Context, c net.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	t := tls.Server(c, p.cfg.config(p.names))
	if err := t.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	q, ok := p.peers[Protocol(t.ConnectionState().NegotiatedProtocol)]
	if !ok {
		return errors.New("handshake: no protocol was agreed on")
	}
	conn, err := p.cfg.welcome(ctx, t)
	if err != nil {
		return err
	}
	if !q.push(conn) {
		return errors.New("backlog is full")
	}
	return nil
}

// queue is a net.Listener fed by the port.
type queue struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newQueue(addr net.Addr, backlog int) *queue {
	return &queue{addr: addr, conns: make(chan net.Conn, backlog), done: make(chan struct{})}
}

// push reports false if the queue is full or closed; c is then still the caller's.
func (q *queue) push(c net.Conn) bool {
	select {
	case <-q.done:
		return false
	default:
	}
	select {
	case q.conns <- c:
		return true
	default:
		return false
	}
}

// Accept implements net.Listener.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case <-q.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener; connections nobody took are closed.
func (q *queue) Close() error {
	q.once.Do(func() {
		close(q.done)
		for {
			select {
			case c := <-q.conns:
				_ = c.Close()
			default:
				return
			}
		}
	})
	return nil
}

// Addr implements net.Listener.
func (q *queue) Addr() net.Addr { return q.addr }

// waiters bounds how many connections are in one stage; who has been in it
// longest gives way. Peers are through in a moment, so those who hold a
// connection open without speaking crowd out only each other.
type waiters struct {
	max int

	mu    sync.Mutex // guards the field below
	conns []net.Conn // oldest first
}

func newWaiters(limit int) *waiters { return &waiters{max: limit} }

func (w *waiters) enter(c net.Conn) (leave func()) {
	w.mu.Lock()
	var oldest net.Conn
	if len(w.conns) >= w.max {
		oldest = w.conns[0]
		w.conns = slices.Delete(w.conns, 0, 1)
	}
	w.conns = append(w.conns, c)
	w.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close()
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if i := slices.Index(w.conns, c); i >= 0 {
			w.conns = slices.Delete(w.conns, i, i+1)
		}
	}
}

func (w *waiters) closeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
}
