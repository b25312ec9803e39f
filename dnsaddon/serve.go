package dnsaddon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	maxQuery    = 4096
	maxWaiting  = 2048 // questions that wait for an upstream answer, per socket
	answerLimit = 5 * time.Second
	bindRetry   = time.Second
)

// sockets are what the add-on listens on.
type sockets struct {
	udp []*net.UDPConn
	tcp []net.Listener
}

func (s sockets) close() {
	for _, c := range s.udp {
		_ = c.Close()
	}
	for _, l := range s.tcp {
		_ = l.Close()
	}
}

// listen opens the sockets: several UDP ones an address, among which the
// kernel spreads the clients, so that cores share no lock. An address need
// not be on an interface yet.
func listen(ctx context.Context, addrs []netip.Addr, port uint16, count int) (sockets, error) {
	var s sockets
	lc := net.ListenConfig{Control: socketOptions}
	for _, a := range addrs {
		at := netip.AddrPortFrom(a, port).String()
		for range count {
			c, err := lc.ListenPacket(ctx, "udp", at)
			if err != nil {
				s.close()
				return sockets{}, fmt.Errorf("listen on UDP %s: %w", at, err)
			}
			if u, ok := c.(*net.UDPConn); ok {
				s.udp = append(s.udp, u)
			}
		}
		l, err := lc.Listen(ctx, "tcp", at)
		if err != nil {
			s.close()
			return sockets{}, fmt.Errorf("listen on TCP %s: %w", at, err)
		}
		s.tcp = append(s.tcp, l)
	}
	return s, nil
}

func socketOptions(network, _ string, c syscall.RawConn) error {
	var err error
	ctl := c.Control(func(fd uintptr) {
		level, freebind := unix.SOL_IP, unix.IP_FREEBIND
		if network == "udp6" || network == "tcp6" {
			level, freebind = unix.SOL_IPV6, unix.IPV6_FREEBIND
		}
		err = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
			unix.SetsockoptInt(int(fd), level, freebind, 1),
		)
	})
	return errors.Join(ctl, err)
}

// serve answers on the sockets until ctx ends, and closes them.
func (d *DNS) serve(ctx context.Context, s sockets) error {
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, s.close)
	defer stop()
	for _, c := range s.udp {
		g.Go(func() error { return d.serveUDP(ctx, c) })
	}
	for _, l := range s.tcp {
		g.Go(func() error { return d.serveTCP(ctx, l) })
	}
	return g.Wait()
}

// serveUDP answers on one socket. What the index or the cache knows is
// answered by the reading goroutine itself; only what must be asked upstream
// gets one of its own, and when too many wait, it is dropped: the client asks
// again.
func (d *DNS) serveUDP(ctx context.Context, c *net.UDPConn) error {
	var slow errgroup.Group
	slow.SetLimit(maxWaiting)
	defer slow.Wait() //nolint:errcheck // they return none
	in, out := make([]byte, maxQuery), make([]byte, maxQuery)
	for {
		n, from, err := c.ReadFromUDPAddrPort(in)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			continue // an ICMP error of some client's
		}
		req := new(dns.Msg)
		if req.Unpack(in[:n]) != nil || req.Response {
			continue
		}
		client := from.Addr().Unmap()
		if m := d.safely(ctx, req, client, false); m != nil {
			send(c, from, m, req, out)
			continue
		}
		slow.TryGo(func() error {
			ctx, cancel := context.WithTimeout(ctx, answerLimit)
			defer cancel()
			if m := d.safely(ctx, req, client, true); m != nil {
				send(c, from, m, req, nil)
			}
			return nil
		})
	}
}

func send(c *net.UDPConn, to netip.AddrPort, m, req *dns.Msg, buf []byte) {
	finish(m, req, true)
	b, err := m.PackBuffer(buf)
	if err != nil {
		fail := new(dns.Msg)
		fail.SetRcode(req, dns.RcodeServerFailure)
		if b, err = fail.Pack(); err != nil {
			return
		}
	}
	// An error here is the client's loss of one answer; it asks again.
	_, _ = c.WriteToUDPAddrPort(b, to)
}

// safely is handle within a boundary: one poisonous question must not stop
// the peer.
func (d *DNS) safely(ctx context.Context, req *dns.Msg, client netip.Addr, wait bool) (m *dns.Msg) {
	defer func() {
		if r := recover(); r != nil {
			d.log.ErrorContext(ctx, "panic while answering", "question", req.Question, "panic", r)
			m = new(dns.Msg)
			m.SetRcode(req, dns.RcodeServerFailure)
		}
	}()
	return d.resolver.handle(ctx, req, client, wait)
}

// serveTCP answers on one listener.
func (d *DNS) serveTCP(ctx context.Context, l net.Listener) error {
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) {
		ctx, cancel := context.WithTimeout(ctx, answerLimit)
		defer cancel()
		client, _ := netip.ParseAddrPort(w.RemoteAddr().String())
		m := d.safely(ctx, req, client.Addr().Unmap(), true)
		finish(m, req, false)
		_ = w.WriteMsg(m) // the client has gone
	})
	srv := &dns.Server{Listener: l, Net: "tcp", Handler: handler}
	done := make(chan struct{})
	started := make(chan struct{})
	srv.NotifyStartedFunc = func() { close(started) }
	go func() {
		defer close(done)
		<-ctx.Done()
		<-started
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerLimit)
		defer cancel()
		_ = srv.ShutdownContext(end)
	}()
	err := srv.ActivateAndServe()
	if ctx.Err() != nil {
		<-done
		return nil //nolint:nilerr // it was shut down because ctx has ended
	}
	return fmt.Errorf("serve DNS over TCP on %s: %w", l.Addr(), err)
}
