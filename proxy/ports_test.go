package proxy_test

import (
	"net/netip"
	"testing"

	"skein.dev/skein/network/lb"
	"skein.dev/skein/network/lb/lbtest"
)

func hostPort(name, to string) lb.Service {
	return lb.Service{
		Front: lb.Front{Addr: netip.MustParseAddr("127.0.0.1"), Protocol: lb.TCP, Port: 8080}, Name: name,
		Backends: []netip.AddrPort{netip.MustParseAddrPort(to)},
	}
}

func TestHostPortsAreWrittenBesideTheServices(t *testing.T) {
	ports := &lb.Feed{}
	p := startWith(t, &lbtest.Kernel{}, true, ports, service("a", "10.96.0.1"), slice("a", "10.1.0.1@p1"))
	p.becomes(t, "ns/a 10.1.0.1")
	ports.Set([]lb.Service{hostPort("ns/p:8080", "10.2.0.1:80")})
	p.becomes(t, "ns/a 10.1.0.1", "ns/p:8080 10.2.0.1")
	ports.Set([]lb.Service{hostPort("ns/q:8080", "10.2.0.2:80")})
	p.becomes(t, "ns/a 10.1.0.1", "ns/q:8080 10.2.0.2")
	ports.Set(nil)
	p.becomes(t, "ns/a 10.1.0.1")
}

func TestHostPortsOfAnEarlierRunStayUntilTheNewOnesAreKnown(t *testing.T) {
	kernel := &lbtest.Kernel{}
	kernel.Open(t).Apply(t.Context(), lb.Change{Set: []lb.Service{hostPort("ns/p:8080", "10.2.0.1:80")}}) //nolint:errcheck // the next line shows it
	ports := &lb.Feed{}
	p := startWith(t, kernel, true, ports, service("a", "10.96.0.1"), slice("a", "10.1.0.1@p1"))
	p.becomes(t, "ns/a 10.1.0.1", "ns/p:8080 10.2.0.1")
	ports.Set(nil)
	p.becomes(t, "ns/a 10.1.0.1")
}
