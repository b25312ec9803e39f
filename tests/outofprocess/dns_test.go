package outofprocess_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/dnsaddon"
	"skein.dev/skein/tests/realapi"
)

func TestDNSAnswersFromAnAPIApart(t *testing.T) {
	api := realapi.Serve(t, realapi.Config{})
	kit := informed(api.Kit("n1", "dns", "system:skein-dns"))
	u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	d, err := dnsaddon.New(dnsaddon.Config{
		Kit: kit, UDP: []*net.UDPConn{u}, Addresses: []netip.Addr{netip.MustParseAddr("10.96.0.10")},
		Upstream: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")},
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, kit.Informers, d.Run)

	ask := func(name string, qtype uint16) []string {
		m, _, err := new(dns.Client).Exchange(new(dns.Msg).SetQuestion(name, qtype), u.LocalAddr().String())
		if err != nil {
			return nil
		}
		var out []string
		for _, rr := range m.Answer {
			switch x := rr.(type) {
			case *dns.A:
				out = append(out, x.A.String())
			case *dns.SRV:
				out = append(out, x.Target)
			case *dns.PTR:
				out = append(out, x.Ptr)
			}
		}
		return out
	}
	answers := func(name string, qtype uint16, want string) {
		t.Helper()
		realapi.Eventually(t, name+" is "+want, func() bool {
			got := ask(name, qtype)
			return len(got) == 1 && got[0] == want
		})
	}
	ip := service(t, api.Admin, "web", nil)
	answers("web.default.svc.cluster.local.", dns.TypeA, ip)
	arpa, err := dns.ReverseAddr(ip)
	if err != nil {
		t.Fatal(err)
	}
	answers(arpa, dns.TypePTR, "web.default.svc.cluster.local.")
	service(t, api.Admin, "db", func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone })
	endpoints(t, api.Admin, "db", 8080, "10.9.1.2")
	answers("db-0.db.default.svc.cluster.local.", dns.TypeA, "10.9.1.2")
	answers("_http._tcp.db.default.svc.cluster.local.", dns.TypeSRV, "db-0.db.default.svc.cluster.local.")
	if err := api.Admin.CoreV1().Services("default").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	realapi.Eventually(t, "the name is gone", func() bool { return len(ask("web.default.svc.cluster.local.", dns.TypeA)) == 0 })
	only(t, kit.Client, append(reading("/services", "/pods", "discovery.k8s.io/endpointslices"), recording()...)...)
}
