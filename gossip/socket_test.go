package gossip_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"skein.dev/skein/api/member"
	"skein.dev/skein/gossip"
	"skein.dev/skein/identity"
	"skein.dev/skein/link"
)

// wired is a pool on real sockets: UDP and a link port of the same number.
type wired struct {
	*gossip.Pool
	self   gossip.Member
	dialer *link.Dialer
	stop   func()
}

// Dial implements gossip.Dialer.
func (w *wired) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	return w.dialer.Dial(ctx, addr.String(), link.Gossip, "")
}

// ProbeDaemon implements gossip.Prober.
func (w *wired) ProbeDaemon(ctx context.Context, m gossip.Member) error {
	c, err := w.dialer.Dial(ctx, netip.AddrPortFrom(m.Addresses[0], m.Port).String(), link.Peer, m.ServerID)
	if err != nil {
		return err
	}
	return c.Close()
}

// ProbeGuard implements gossip.Prober: these peers have none.
func (*wired) ProbeGuard(context.Context, gossip.Member) error { return errors.New("no guard") }

func wire(t *testing.T, k *identity.Keyring, name string, port int, records []gossip.Member) *wired {
	t.Helper()
	loopback := netip.MustParseAddr("127.0.0.1")
	id := member.ServerID("srv-" + name)
	pair, err := k.Issue(identity.UsePeer, identity.Machine{Name: member.Name(name), ServerID: id, Addresses: []netip.Addr{loopback}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pair.TLS()
	if err != nil {
		t.Fatal(err)
	}
	creds := link.Credentials{
		Self:        id,
		Certificate: func() (*tls.Certificate, error) { return &cert, nil },
		Roots:       func() *x509.CertPool { return k.Pool(identity.Peers) },
		Mesh: func() link.Mesh {
			return link.Mesh{Cluster: k.Cluster.ID, Incarnation: k.Cluster.Incarnation}
		},
	}
	w := &wired{}
	if w.dialer, err = link.NewDialer(creds); err != nil {
		t.Fatal(err)
	}
	p, packets := sockets(t, creds, port)
	w.self = gossip.Member{
		Name: member.Name(name), ServerID: id, Addresses: []netip.Addr{loopback},
		Port: uint16(p.Addr().(*net.TCPAddr).Port),
	}
	w.Pool, err = gossip.New(gossip.Config{
		Self: w.self, Keys: k.Gossip, Mesh: k.Cluster.ID, Packets: packets, Streams: p.Listener(link.Gossip),
		Dialer: w, Prober: w, Records: records,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var parts sync.WaitGroup
	parts.Go(func() { _ = p.Run(ctx) })
	parts.Go(func() { _ = w.Run(ctx) })
	parts.Go(func() { // peer links serve nothing here: to accept is to live
		for {
			c, err := p.Listener(link.Peer).Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	})
	w.stop = func() { cancel(); parts.Wait() }
	t.Cleanup(w.stop)
	return w
}

// sockets opens TCP and UDP of one number; with port 0 of any that is free in both.
func sockets(t *testing.T, creds link.Credentials, port int) (*link.Port, net.PacketConn) {
	t.Helper()
	for range 20 {
		p, err := link.Open(t.Context(), link.Config{
			Address: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port)).String(), Credentials: creds,
		})
		if err != nil {
			t.Fatal(err)
		}
		pc, err := link.ListenPacket(t.Context(), p.Addr().String())
		if err == nil {
			return p, pc
		}
		_ = p.Close()
	}
	t.Fatal("no port is free in TCP and UDP")
	return nil, nil
}

func (w *wired) await(t *testing.T, of *wired, want member.State) {
	t.Helper()
	for {
		changed := w.Changed()
		var got member.State
		for _, p := range w.Peers() {
			if p.Name == of.self.Name {
				got = p.State
			}
		}
		if got == want {
			return
		}
		select {
		case <-changed:
		case <-time.After(time.Minute):
			t.Fatalf("%s sees %s as %s, want %s", w.self.Name, of.self.Name, got, want)
		}
	}
}

func TestPeersMeetLoseAndFindEachOtherOverTheOnePort(t *testing.T) {
	k, err := identity.NewKeyring(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	a := wire(t, k, "a", 0, nil)
	b := wire(t, k, "b", 0, []gossip.Member{a.self})
	c := wire(t, k, "c", 0, []gossip.Member{a.self})
	all := []*wired{a, b, c}
	for _, w := range all {
		for _, of := range all {
			w.await(t, of, member.Alive)
		}
	}
	c.stop()
	a.await(t, c, member.Dead)
	b.await(t, c, member.Dead)
	// It comes back knowing nobody: the others find it.
	again := wire(t, k, "c", int(c.self.Port), nil)
	a.await(t, again, member.Alive)
	again.await(t, b, member.Alive)
	if err := again.Announce(t.Context(), gossip.Leaving); err != nil {
		t.Error(err)
	}
	a.await(t, again, member.Left)
	b.await(t, again, member.Left)
}
