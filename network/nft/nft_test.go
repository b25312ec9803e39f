package nft_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"

	"skein.dev/skein/network/lb"
	"skein.dev/skein/network/lb/lbtest"
	"skein.dev/skein/network/nft"
	"skein.dev/skein/network/ns"
	"skein.dev/skein/network/nstest"
)

// world is a machine with a client and servers, each in a namespace of its
// own behind a link of its own.
type world struct {
	host    *nstest.NS
	pods    map[lbtest.From]*nstest.NS
	address map[lbtest.From]netip.Addr
}

const serverPort = 8080

func newWorld(t *testing.T, v6 bool) lbtest.World {
	t.Helper()
	w := &world{host: nstest.New(t), pods: map[lbtest.From]*nstest.NS{}, address: map[lbtest.From]netip.Addr{}}
	w.host.Forward(t)
	w.host.Do(t, func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0o644) })
	w.pods[lbtest.Host] = w.host
	for from := lbtest.Client; from < lbtest.Servers; from++ {
		n := int(from) + 2
		near, far := fmt.Sprintf("10.9.%d.1", n), fmt.Sprintf("10.9.%d.2", n)
		bits, all := "/24", "default"
		if v6 {
			near, far = fmt.Sprintf("fd09:%d::1", n), fmt.Sprintf("fd09:%d::2", n)
			bits, all = "/64", "::/0"
		}
		pod := nstest.New(t)
		w.host.Join(t, fmt.Sprintf("pod%d", n), near+bits, pod, "eth0", far+bits)
		pod.Route(t, all, near)
		w.pods[from], w.address[from] = pod, netip.MustParseAddr(far)
		w.address[lbtest.Host] = netip.MustParseAddr(near)
		if from >= 0 {
			w.serve(t, from)
		}
	}
	if v6 { // a route, so that the address leaves through the machine's own hooks
		w.host.Route(t, "fd96::/64", "fd09:1::2")
	} else {
		w.host.Route(t, "10.96.0.0/16", "10.9.1.2")
	}
	// A link that was just set up may still drop what is sent.
	for from := lbtest.Host; from < lbtest.Servers; from++ {
		for i := range lbtest.Servers {
			direct := lb.Front{Addr: w.Server(i).Addr(), Protocol: lb.TCP, Port: serverPort}
			for try := 0; ; try++ {
				if _, err := w.Dial(t, from, direct); err == nil {
					break
				} else if try == 20 {
					t.Fatalf("%d does not reach server %d: %v", from, i, err)
				}
			}
		}
	}
	return w
}

// serve answers on TCP and UDP with the server's address and the client's.
func (w *world) serve(t *testing.T, i lbtest.From) {
	t.Helper()
	at := w.Server(int(i)).String()
	var l net.Listener
	var u net.PacketConn
	w.pods[i].Do(t, func() (err error) {
		if l, err = net.Listen("tcp", at); err == nil {
			u, err = net.ListenPacket("udp", at)
		}
		return err
	})
	t.Cleanup(func() { l.Close(); u.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s %s", at, c.RemoteAddr())
			c.Close()
		}
	}()
	go func() {
		for buf := make([]byte, 64); ; {
			_, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = u.WriteTo(fmt.Appendf(nil, "%s %s", at, from), from)
		}
	}()
}

func (w *world) Open(t *testing.T) lbtest.Backend {
	t.Helper()
	b, err := nft.New(nft.Config{NetNS: w.host.Path})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (w *world) Flush(t *testing.T) {
	t.Helper()
	w.host.Do(t, func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.FlushRuleset()
		return c.Flush()
	})
}

func (w *world) Server(i int) netip.AddrPort {
	return netip.AddrPortFrom(w.address[lbtest.From(i)], serverPort)
}

func (w *world) Address(from lbtest.From) netip.Addr { return w.address[from] }

func (w *world) Dial(t *testing.T, from lbtest.From, to lb.Front) (lbtest.Reply, error) {
	t.Helper()
	return w.Flow(t, from, to)()
}

func (w *world) Flow(t *testing.T, from lbtest.From, to lb.Front) func() (lbtest.Reply, error) {
	t.Helper()
	at := netip.AddrPortFrom(to.Addr, to.Port).String()
	network := strings.ToLower(to.Protocol.String())
	var c net.Conn
	err := ns.Do(w.pods[from].Path, func() (err error) {
		c, err = net.DialTimeout(network, at, 400*time.Millisecond)
		return err
	})
	if err != nil {
		return func() (lbtest.Reply, error) { return lbtest.Reply{}, kind(err) }
	}
	t.Cleanup(func() { c.Close() })
	return func() (lbtest.Reply, error) {
		if network == "udp" {
			if _, err := c.Write([]byte("?")); err != nil {
				return lbtest.Reply{}, kind(err)
			}
		}
		buf := make([]byte, 200)
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		n, err := c.Read(buf)
		if err != nil {
			return lbtest.Reply{}, kind(err)
		}
		server, source, _ := strings.Cut(string(buf[:n]), " ")
		return lbtest.Reply{Server: netip.MustParseAddrPort(server), Source: netip.MustParseAddrPort(source).Addr()}, nil
	}
}

func kind(err error) error {
	var n net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return lbtest.ErrRefused
	case errors.As(err, &n) && n.Timeout():
		return lbtest.ErrSilent
	}
	return err
}

func TestIPv4Conforms(t *testing.T) {
	lbtest.Run(t, netip.MustParseAddr("10.96.0.7"), func(t *testing.T) lbtest.World {
		t.Helper()
		return newWorld(t, false)
	})
}

func TestIPv6Conforms(t *testing.T) {
	lbtest.Run(t, netip.MustParseAddr("fd96::7"), func(t *testing.T) lbtest.World {
		t.Helper()
		return newWorld(t, true)
	})
}

func TestServicesOfOneKindShareAChainWhichGoesWithThem(t *testing.T) {
	path := nstest.New(t).Path
	all := crowd(50)
	open := func() *nft.Table {
		b, err := nft.New(nft.Config{NetNS: path})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	chains := func() []string {
		var out []string
		err := ns.Do(path, func() error {
			c, err := nftables.New()
			if err != nil {
				return err
			}
			list, err := c.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
			for _, ch := range list {
				if strings.HasPrefix(ch.Name, "draw-") {
					out = append(out, ch.Name)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(out)
		return out
	}
	all[0].Masquerade, all[1].Affinity, all[2].Backends = true, 3*time.Hour, all[2].Backends[:1]
	if err := open().Apply(t.Context(), lb.Change{Set: all}); err != nil {
		t.Fatal(err)
	}
	if got, want := chains(), []string{"draw-1", "draw-3", "draw-3-10800s", "draw-3-masquerade"}; !slices.Equal(got, want) {
		t.Errorf("chains %v, want %v", got, want)
	}
	later := open()
	for range 2 { // the second look finds what the first change left behind
		if err := later.Apply(t.Context(), lb.Change{Remove: []lb.Front{all[0].Front, all[1].Front, all[2].Front}}); err != nil {
			t.Fatal(err)
		}
		later.Forget()
	}
	if got := chains(); !slices.Equal(got, []string{"draw-3"}) {
		t.Errorf("chains %v, want draw-3 alone", got)
	}
}
