package dnsaddon

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// FuzzQuestions answers any datagram that a pod may send: what is a question
// is answered within what the asker can take, and never by a panic.
func FuzzQuestions(f *testing.F) {
	seed := func(name string, kind uint16, change func(*dns.Msg)) {
		m := new(dns.Msg)
		m.SetQuestion(name, kind)
		if change != nil {
			change(m)
		}
		raw, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	x := newIndex()
	r := &resolver{
		zone:    &zone{domain: "cluster.local.", ttl: 5, servers: []netip.Addr{netip.MustParseAddr("10.96.0.10")}, index: x},
		forward: newForwarder(16),
	}
	r.ready.Store(true)
	seed("kubernetes.default.svc.cluster.local.", dns.TypeA, nil)
	seed("a.b.default.svc.cluster.local.svc.cluster.local.", dns.TypeAAAA, func(m *dns.Msg) { m.SetEdns0(0, true) })
	seed("10.0.96.10.in-addr.arpa.", dns.TypePTR, nil)
	seed("_http._tcp.x.y.svc.cluster.local.", dns.TypeSRV, func(m *dns.Msg) { m.SetEdns0(65535, false) })
	seed("10-0-0-1.default.pod.cluster.local.", dns.TypeANY, nil)
	seed("cluster.local.", dns.TypeAXFR, func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) })
	seed(".", dns.TypeNS, func(m *dns.Msg) { m.Question = nil })
	seed("x.", dns.TypeA, func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate })
	f.Fuzz(func(t *testing.T, data []byte) {
		req := new(dns.Msg)
		if req.Unpack(data) != nil || req.Response {
			return
		}
		m := r.handle(t.Context(), req, netip.MustParseAddr("10.1.0.5"), false)
		if m == nil {
			return // to be asked upstream
		}
		finish(m, req, true)
		raw, err := m.Pack()
		if err != nil {
			t.Fatalf("the answer to %v cannot be said: %v", req, err)
		}
		room := 512
		if o := req.IsEdns0(); o != nil {
			room = max(room, int(o.UDPSize()))
		}
		if len(raw) > room {
			t.Fatalf("%d bytes for an asker with room for %d", len(raw), room)
		}
		if m.Id != req.Id || !m.Response {
			t.Fatalf("%v is no answer to %v", m, req)
		}
	})
}
