package raftstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"skein.dev/skein/api/member"
)

// handler answers what other peers ask. It must not keep payload.
type handler func(ctx context.Context, from member.ServerID, kind call, payload []byte) ([]byte, error)

// link is the peers' own protocol beside raft's: one connection to each peer
// we ask, one from each that asks us, many calls under way on each.
type link struct {
	network Network
	members *members
	handle  handler
	log     *slog.Logger

	wg sync.WaitGroup // of connections

	mu     sync.Mutex // guards the fields below
	closed bool
	peers  map[member.ServerID]*linkPeer
	open   map[*linkConn]struct{}
}

// linkPeer is the way to one peer. Who has put something into turn may touch
// the rest, and dial: one dial of many, for which others wait no longer than
// their own context lasts.
type linkPeer struct {
	turn    chan struct{}
	conn    *linkConn
	retryAt time.Time
}

const (
	dialTimeout = time.Second
	dialPause   = 50 * time.Millisecond // after a failed dial, none is tried
	staleAfter  = 2 * time.Second       // a connection that does not answer for so long is replaced
)

func newLink(n Network, m *members, h handler, log *slog.Logger) *link {
	return &link{
		network: n, members: m, handle: h, log: log,
		peers: map[member.ServerID]*linkPeer{}, open: map[*linkConn]struct{}{},
	}
}

// run serves other peers until ctx ends; no connection survives it.
func (l *link) run(ctx context.Context) error {
	if l.network.Listener == nil {
		<-ctx.Done()
		return nil
	}
	stop := context.AfterFunc(ctx, l.close)
	defer stop()
	defer l.wg.Wait()
	for {
		c, err := l.network.Listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return nil
		}
		if err != nil {
			l.close()
			return fmt.Errorf("accept on peer link: %w", err)
		}
		if m := admit(c, l.members, l.log); m != nil {
			conn := newLinkConn(m)
			l.start(conn, func() { l.serve(ctx, conn, m.id) })
		}
	}
}

func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	open := l.open
	l.open = map[*linkConn]struct{}{}
	l.mu.Unlock()
	_ = l.network.Listener.Close()
	for c := range open {
		c.fail(errUnreachable)
	}
}

// start runs a connection's two goroutines.
func (l *link) start(c *linkConn, read func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		c.fail(errUnreachable)
		return false
	}
	l.open[c] = struct{}{}
	l.wg.Go(c.write)
	l.wg.Go(func() {
		read()
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.open, c)
	})
	return true
}

// ask calls a peer and waits for its answer.
func (l *link) ask(ctx context.Context, to member.ServerID, kind call, payload []byte) ([]byte, error) {
	c, err := l.connect(ctx, to)
	if err != nil {
		return nil, errors.Join(errUndelivered, err)
	}
	return c.ask(ctx, kind, payload)
}

func (l *link) connect(ctx context.Context, to member.ServerID) (*linkConn, error) {
	if l.network.Dial == nil {
		return nil, fmt.Errorf("dial %s: %w", to, errUnreachable)
	}
	l.mu.Lock()
	p := l.peers[to]
	if p == nil {
		p = &linkPeer{turn: make(chan struct{}, 1)}
		l.peers[to] = p
	}
	l.mu.Unlock()

	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("dial %s: %w", to, errors.Join(errUnreachable, ctx.Err()))
	}
	defer func() { <-p.turn }()
	if p.conn != nil && p.conn.usable() {
		return p.conn, nil
	}
	if time.Now().Before(p.retryAt) {
		return nil, fmt.Errorf("dial %s: %w", to, errUnreachable)
	}
	addr, ok := l.members.address(to)
	if !ok {
		return nil, fmt.Errorf("dial %s: no address: %w", to, errUnreachable)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := l.network.Dial(ctx, to, addr)
	if err == nil {
		raw, err = verify(raw, to)
	}
	if err != nil {
		p.retryAt = time.Now().Add(dialPause)
		return nil, fmt.Errorf("dial %s: %w", to, errors.Join(errUnreachable, err))
	}
	conn := newLinkConn(raw)
	if !l.start(conn, conn.readAnswers) {
		return nil, fmt.Errorf("dial %s: %w", to, errUnreachable)
	}
	p.conn = conn
	return conn, nil
}

// serve answers one peer's calls. Pings are answered at once and in line: a
// read of the whole mesh may wait for them. The rest may wait for the log.
func (l *link) serve(ctx context.Context, c *linkConn, from member.ServerID) {
	ctx, cancel := context.WithCancel(ctx)
	var calls sync.WaitGroup
	defer calls.Wait()
	defer cancel()
	room := make(chan struct{}, 64)
	for {
		f, err := c.read()
		if err != nil {
			return
		}
		respond := func() {
			payload, err := l.handle(ctx, from, f.kind, f.payload)
			c.send(ctx, frame{kind: f.kind | answer, number: f.number, payload: encodeAnswer(payload, err)})
		}
		if f.kind == callPing || f.kind == callReport {
			respond()
			continue
		}
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return
		}
		calls.Go(func() {
			respond()
			<-room
		})
	}
}
