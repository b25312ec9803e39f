package raftstore

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// linkConn is one connection of the peer link. Whoever fails first closes it,
// and all calls under way fail with it.
type linkConn struct {
	conn net.Conn
	in   *bufio.Reader
	out  chan frame
	dead chan struct{}
	seen atomic.Int64 // when something last came in, Unix nanoseconds

	mu    sync.Mutex // guards the fields below
	err   error      // why it is dead
	last  uint64
	calls map[uint64]chan []byte
}

func newLinkConn(c net.Conn) *linkConn {
	lc := &linkConn{
		conn: c, in: bufio.NewReaderSize(c, 1<<16), out: make(chan frame, 64),
		dead: make(chan struct{}), calls: map[uint64]chan []byte{},
	}
	lc.seen.Store(time.Now().UnixNano())
	return lc
}

func (c *linkConn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	close(c.dead)
	_ = c.conn.Close()
}

func (c *linkConn) usable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err == nil
}

func (c *linkConn) send(ctx context.Context, f frame) {
	select {
	case c.out <- f:
	case <-c.dead:
	case <-ctx.Done():
	}
}

// write sends what is queued and flushes when nothing more is.
func (c *linkConn) write() {
	w := bufio.NewWriterSize(c.conn, 1<<16)
	for {
		select {
		case <-c.dead:
			return
		case f := <-c.out:
			err := c.conn.SetWriteDeadline(time.Now().Add(staleAfter))
			if err == nil {
				err = writeFrame(w, f)
			}
			if err == nil && len(c.out) == 0 {
				err = w.Flush()
			}
			if err != nil {
				c.fail(fmt.Errorf("write to peer: %w", err))
				return
			}
		}
	}
}

func (c *linkConn) read() (frame, error) {
	f, err := readFrame(c.in)
	if err != nil {
		c.fail(fmt.Errorf("read from peer: %w", err))
		return f, err
	}
	c.seen.Store(time.Now().UnixNano())
	return f, nil
}

// readAnswers hands answers to those who wait for them.
func (c *linkConn) readAnswers() {
	for {
		f, err := c.read()
		if err != nil {
			return
		}
		c.mu.Lock()
		ch := c.calls[f.number]
		delete(c.calls, f.number)
		c.mu.Unlock()
		if ch != nil {
			ch <- f.payload
		}
	}
}

func (c *linkConn) ask(ctx context.Context, kind call, payload []byte) ([]byte, error) {
	ch := make(chan []byte, 1)
	c.mu.Lock()
	c.last++
	number := c.last
	c.calls[number] = ch
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.calls, number)
	}()
	asked := time.Now()
	c.send(ctx, frame{kind: kind, number: number, payload: payload})
	select {
	case b := <-ch:
		return decodeAnswer(b)
	case <-c.dead:
		return nil, fmt.Errorf("connection to peer: %w", errUnreachable)
	case <-ctx.Done():
		// An address that swallows everything never fails by itself.
		if time.Since(asked) > staleAfter/4 && time.Now().UnixNano()-c.seen.Load() > int64(staleAfter) {
			c.fail(errUnreachable)
		}
		return nil, fmt.Errorf("wait for peer: %w", ctx.Err())
	}
}
