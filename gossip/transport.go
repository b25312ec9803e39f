package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport carries memberlist over the one port: packets by UDP, streams by
// peer links.
type transport struct {
	self    netip.AddrPort
	packets net.PacketConn
	streams net.Listener
	dial    func(addr netip.AddrPort, timeout time.Duration) (net.Conn, error)

	in      chan *memberlist.Packet
	conns   chan net.Conn
	done    chan struct{}
	once    sync.Once
	readers sync.WaitGroup
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

// stream is a dialed connection that ends with Run.
type stream struct {
	net.Conn
	stop func() bool
}

// Close implements net.Conn.
func (s *stream) Close() error {
	s.stop()
	return s.Conn.Close()
}

// newTransport starts reading. It ends with Shutdown; ctx ends dialing and what was dialed.
func newTransport(ctx context.Context, cfg Config) *transport {
	t := &transport{
		self:    netip.AddrPortFrom(cfg.Self.Addresses[0], cfg.Self.Port),
		packets: cfg.Packets, streams: cfg.Streams,
		dial: func(addr netip.AddrPort, timeout time.Duration) (net.Conn, error) {
			dctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			c, err := cfg.Dialer.Dial(dctx, addr)
			if err != nil {
				return nil, fmt.Errorf("dial stream: %w", err)
			}
			// memberlist writes to a stream before it sets a deadline, and
			// nobody else would end a stream whose other end has gone silent.
			if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
				_ = c.Close()
				return nil, fmt.Errorf("dial stream: %w", err)
			}
			return &stream{Conn: c, stop: context.AfterFunc(ctx, func() { _ = c.Close() })}, nil
		},
		in:    make(chan *memberlist.Packet, 256),
		conns: make(chan net.Conn, 16),
		done:  make(chan struct{}),
	}
	t.readers.Go(t.readPackets)
	t.readers.Go(t.acceptStreams)
	return t
}

func (t *transport) readPackets() {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := t.packets.ReadFrom(buf)
		if err != nil {
			if !t.pause(err) {
				return
			}
			continue
		}
		pkt := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: from, Timestamp: time.Now()}
		select {
		case t.in <- pkt:
		case <-t.done:
			return
		default: // memberlist is behind; like the network, lose it
		}
	}
}

func (t *transport) acceptStreams() {
	for {
		c, err := t.streams.Accept()
		if err != nil {
			if !t.pause(err) {
				return
			}
			continue
		}
		select {
		case t.conns <- c:
		case <-t.done:
			_ = c.Close()
			return
		}
	}
}

// pause reports whether to go on after an error of a socket, and waits before.
func (t *transport) pause(err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	select {
	case <-t.done:
		return false
	case <-time.After(50 * time.Millisecond):
		return true
	}
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.self.Addr().Unmap().AsSlice(), int(t.self.Port()), nil
}

// WriteTo implements memberlist.Transport.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *transport) WriteToAddress(b []byte, addr memberlist.Address) (time.Time, error) {
	to, err := netip.ParseAddrPort(addr.Addr)
	if err != nil {
		return time.Time{}, fmt.Errorf("send packet: %w", err)
	}
	now := time.Now()
	if _, err := t.packets.WriteTo(b, net.UDPAddrFromAddrPort(to)); err != nil {
		return time.Time{}, err
	}
	return now, nil
}

// PacketCh implements memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.in }

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.conns }

// DialTimeout implements memberlist.Transport.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *transport) DialAddressTimeout(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr.Addr)
	if err != nil {
		return nil, fmt.Errorf("dial stream: %w", err)
	}
	return t.dial(to, timeout)
}

// Shutdown implements memberlist.Transport; it is safe to call twice.
func (t *transport) Shutdown() error {
	var err error
	t.once.Do(func() {
		close(t.done)
		err = errors.Join(t.packets.Close(), t.streams.Close())
		t.readers.Wait()
		for {
			select {
			case c := <-t.conns:
				_ = c.Close()
			default:
				return
			}
		}
	})
	return err
}
