package nft_test

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"skein.dev/skein/network/lb"
	"skein.dev/skein/network/lb/lbtest"
	"skein.dev/skein/network/ns"
)

// One port of the machine leads elsewhere by address and protocol, as host
// ports with different addresses do.
func TestOnePortLeadsElsewhereByAddressAndProtocol(t *testing.T) {
	w, ok := newWorld(t, false).(*world)
	if !ok {
		t.Fatal("no world")
	}
	b := w.Open(t)
	host := w.Address(lbtest.Host)
	front := func(a netip.Addr, p lb.Protocol) lb.Front { return lb.Front{Addr: a, Protocol: p, Port: 54323} }
	loopback := netip.MustParseAddr("127.0.0.1")
	set := []lb.Service{
		{Front: front(loopback, lb.TCP), Name: "ns/pod1", Backends: []netip.AddrPort{w.Server(0)}},
		{Front: front(host, lb.TCP), Name: "ns/pod2", Backends: []netip.AddrPort{w.Server(1)}},
		{Front: front(host, lb.UDP), Name: "ns/pod3", Backends: []netip.AddrPort{w.Server(2)}},
	}
	if err := b.Apply(t.Context(), lb.Change{Set: set}); err != nil {
		t.Fatal(err)
	}
	for i, from := range []lbtest.From{lbtest.Host, lbtest.Client} {
		for n, p := range map[int]lb.Protocol{1: lb.TCP, 2: lb.UDP} {
			r, err := w.Dial(t, from, front(host, p))
			if err != nil || r.Server != w.Server(n) || r.Source != w.Address(from) && i == 1 {
				t.Errorf("%s from %d: %v %v, want server %d, which sees the client", p, from, r, err, n)
			}
		}
	}
	// With the machine's address as its own, a socket reaches the loopback's.
	var got []byte
	err := ns.Do(w.host.Path, func() error {
		d := net.Dialer{Timeout: time.Second, LocalAddr: &net.TCPAddr{IP: host.AsSlice()}}
		c, err := d.DialContext(t.Context(), "tcp", "127.0.0.1:54323")
		if err != nil {
			return err
		}
		defer c.Close()
		got, err = io.ReadAll(c)
		return err
	})
	if err != nil || !strings.HasPrefix(string(got), w.Server(0).String()+" ") {
		t.Errorf("loopback: %q, %v; want server 0", got, err)
	}
}
