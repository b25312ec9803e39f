package dnsaddon_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"skein.dev/skein/api/component"
	"skein.dev/skein/api/member"
	"skein.dev/skein/api/member/membertest"
	"skein.dev/skein/dnsaddon"
)

// server is a running add-on.
type server struct {
	client *fake.Clientset
	view   *membertest.View
	addr   string
}

// start runs an add-on over the objects. Without sync its informers are never
// started.
func start(tb testing.TB, sync bool, c dnsaddon.Config, objects ...runtime.Object) *server {
	tb.Helper()
	s := &server{client: fake.NewClientset(objects...), view: &membertest.View{}}
	factory := informers.NewSharedInformerFactory(s.client, 0)
	u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("tcp4", u.LocalAddr().String())
	if err != nil {
		tb.Fatal(err)
	}
	s.addr = u.LocalAddr().String()
	c.Kit = component.Kit{Peer: "p1", Client: s.client, Informers: factory}
	c.UDP, c.TCP, c.View = []*net.UDPConn{u}, []net.Listener{l}, s.view
	c.Addresses = []netip.Addr{netip.MustParseAddr("10.96.0.10")}
	if c.Upstream == nil {
		c.Upstream = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")} // refuses
	}
	d, err := dnsaddon.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(tb.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	if sync {
		factory.Start(ctx.Done())
		factory.WaitForCacheSync(ctx.Done())
	}
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("run: %v", err)
		}
		factory.Shutdown()
	})
	if sync {
		eventually(tb, func() error {
			if m := s.ask(tb, "dns-version.cluster.local.", dns.TypeTXT); m.Rcode != dns.RcodeSuccess {
				return fmt.Errorf("not ready: %s", dns.RcodeToString[m.Rcode])
			}
			return nil
		})
	}
	return s
}

func eventually(tb testing.TB, try func() error) {
	tb.Helper()
	var err error
	for range 200 {
		if err = try(); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	tb.Fatal(err)
}

func (s *server) exchange(tb testing.TB, network string, m *dns.Msg) *dns.Msg {
	tb.Helper()
	c := dns.Client{Net: network, Timeout: 8 * time.Second}
	r, _, err := c.Exchange(m, s.addr)
	if err != nil {
		tb.Fatalf("ask %s: %v", m.Question[0].Name, err)
	}
	r.Compress = true // for Len: as it came
	return r
}

func (s *server) ask(tb testing.TB, name string, qtype uint16) *dns.Msg {
	tb.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	return s.exchange(tb, "udp", m)
}

// brief is a message as one line: the code, the answers sorted, and "soa"
// when the authority section has one.
func brief(m *dns.Msg) string {
	out := []string{}
	for _, rr := range m.Answer {
		f := strings.Fields(rr.String())
		out = append(out, strings.Join(append(f[:1], f[3:]...), " "))
	}
	slices.Sort(out)
	for _, rr := range m.Ns {
		if rr.Header().Rrtype == dns.TypeSOA {
			out = append(out, "soa")
		}
	}
	return strings.TrimSpace(dns.RcodeToString[m.Rcode] + " " + strings.Join(out, "; "))
}

//go:fix inline

func service(namespace, name string, change func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{
			{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80},
			{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53},
		}},
	}
	change(s)
	return s
}

func headless(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }

func clusterIP(ips ...string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = ips[0], ips }
}

func endpoint(ip, node, hostname string, ready bool) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{ip}, NodeName: &node, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
	if hostname != "" {
		e.Hostname = &hostname
	}
	return e
}

func slice(namespace, service string, eps ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: service + "-1",
			Labels: map[string]string{discoveryv1.LabelServiceName: service},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   eps,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Protocol: new(corev1.ProtocolTCP), Port: new(int32(8080))}},
	}
}

func cluster() []runtime.Object {
	return []runtime.Object{
		service("default", "web", clusterIP("10.96.0.7", "fd96::7")),
		service("default", "db", headless),
		slice("default", "db", endpoint("10.244.1.5", "p1", "db-0", true), endpoint("10.244.2.5", "p2", "", true), endpoint("10.244.2.6", "p2", "db-2", false)),
		service("default", "early", func(s *corev1.Service) { headless(s); s.Spec.PublishNotReadyAddresses = true }),
		slice("default", "early", endpoint("10.244.3.5", "p3", "e-0", false)),
		service("default", "empty", headless),
		service("other", "ext", func(s *corev1.Service) {
			s.Spec.Type, s.Spec.ExternalName, s.Spec.Ports = corev1.ServiceTypeExternalName, "Web.Default.svc.cluster.local", nil
		}),
		service("other", "loop", func(s *corev1.Service) {
			s.Spec.Type, s.Spec.ExternalName, s.Spec.Ports = corev1.ServiceTypeExternalName, "loop.other.svc.cluster.local", nil
		}),
	}
}

// TestAnswersAsTheSpecificationSays goes through the Kubernetes DNS-Based
// Service Discovery specification, version 1.1.
func TestAnswersAsTheSpecificationSays(t *testing.T) {
	s := start(t, true, dnsaddon.Config{}, cluster()...)
	for _, c := range []struct {
		rule  string
		name  string
		qtype uint16
		want  string
	}{
		{"schema version", "dns-version.cluster.local.", dns.TypeTXT, `NOERROR dns-version.cluster.local. TXT "1.1.0"`},
		{"cluster IP", "web.default.svc.cluster.local.", dns.TypeA, "NOERROR web.default.svc.cluster.local. A 10.96.0.7"},
		{"cluster IP, IPv6", "web.default.svc.cluster.local.", dns.TypeAAAA, "NOERROR web.default.svc.cluster.local. AAAA fd96::7"},
		{"the spelling asked is kept", "WEB.default.SVC.cluster.LOCAL.", dns.TypeA, "NOERROR WEB.default.SVC.cluster.LOCAL. A 10.96.0.7"},
		{"a name without such data", "web.default.svc.cluster.local.", dns.TypeMX, "NOERROR soa"},
		{"SRV of a cluster IP", "_http._tcp.web.default.svc.cluster.local.", dns.TypeSRV, "NOERROR _http._tcp.web.default.svc.cluster.local. SRV 0 100 80 web.default.svc.cluster.local."},
		{"SRV by protocol", "_dns._udp.web.default.svc.cluster.local.", dns.TypeSRV, "NOERROR _dns._udp.web.default.svc.cluster.local. SRV 0 100 53 web.default.svc.cluster.local."},
		{"SRV of no such port", "_none._tcp.web.default.svc.cluster.local.", dns.TypeSRV, "NXDOMAIN soa"},
		{"a protocol alone is an empty name", "_tcp.web.default.svc.cluster.local.", dns.TypeA, "NOERROR soa"},
		{"PTR of a cluster IP", "7.0.96.10.in-addr.arpa.", dns.TypePTR, "NOERROR 7.0.96.10.in-addr.arpa. PTR web.default.svc.cluster.local."},
		{"PTR of an IPv6 cluster IP", "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.d.f.ip6.arpa.", dns.TypePTR, "NOERROR 7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.d.f.ip6.arpa. PTR web.default.svc.cluster.local."},
		{"headless: the ready endpoints", "db.default.svc.cluster.local.", dns.TypeA, "NOERROR db.default.svc.cluster.local. A 10.244.1.5; db.default.svc.cluster.local. A 10.244.2.5"},
		{"headless: no IPv6", "db.default.svc.cluster.local.", dns.TypeAAAA, "NOERROR soa"},
		{"headless: by hostname", "db-0.db.default.svc.cluster.local.", dns.TypeA, "NOERROR db-0.db.default.svc.cluster.local. A 10.244.1.5"},
		{"headless: by address", "10-244-2-5.db.default.svc.cluster.local.", dns.TypeA, "NOERROR 10-244-2-5.db.default.svc.cluster.local. A 10.244.2.5"},
		{"headless: a host that is not ready", "db-2.db.default.svc.cluster.local.", dns.TypeA, "NXDOMAIN soa"},
		{"headless: not ready but published", "e-0.early.default.svc.cluster.local.", dns.TypeA, "NOERROR e-0.early.default.svc.cluster.local. A 10.244.3.5"},
		{"headless: SRV with a target each", "_http._tcp.db.default.svc.cluster.local.", dns.TypeSRV, "NOERROR _http._tcp.db.default.svc.cluster.local. SRV 0 50 8080 10-244-2-5.db.default.svc.cluster.local.; _http._tcp.db.default.svc.cluster.local. SRV 0 50 8080 db-0.db.default.svc.cluster.local."},
		{"headless: PTR by hostname", "5.1.244.10.in-addr.arpa.", dns.TypePTR, "NOERROR 5.1.244.10.in-addr.arpa. PTR db-0.db.default.svc.cluster.local."},
		{"headless without endpoints exists", "empty.default.svc.cluster.local.", dns.TypeA, "NOERROR soa"},
		{"ExternalName into the cluster", "ext.other.svc.cluster.local.", dns.TypeA, "NOERROR ext.other.svc.cluster.local. CNAME web.default.svc.cluster.local.; web.default.svc.cluster.local. A 10.96.0.7"},
		{"ExternalName to itself", "loop.other.svc.cluster.local.", dns.TypeA, "SERVFAIL"},
		{"no such service", "none.default.svc.cluster.local.", dns.TypeA, "NXDOMAIN soa"},
		{"no such namespace", "web.none.svc.cluster.local.", dns.TypeA, "NXDOMAIN soa"},
		{"a namespace is an empty name", "default.svc.cluster.local.", dns.TypeA, "NOERROR soa"},
		{"svc is an empty name", "svc.cluster.local.", dns.TypeA, "NOERROR soa"},
		{"nothing else is in the zone", "example.cluster.local.", dns.TypeA, "NXDOMAIN soa"},
		{"a name under a cluster IP service", "x.web.default.svc.cluster.local.", dns.TypeA, "NXDOMAIN soa"},
		{"pod", "10-244-9-8.default.pod.cluster.local.", dns.TypeA, "NOERROR 10-244-9-8.default.pod.cluster.local. A 10.244.9.8"},
		{"pod, IPv6", "fd00--8.default.pod.cluster.local.", dns.TypeAAAA, "NOERROR fd00--8.default.pod.cluster.local. AAAA fd00::8"},
		{"pod: no address", "what.default.pod.cluster.local.", dns.TypeA, "NXDOMAIN soa"},
		{"the zone's name server", "ns.dns.cluster.local.", dns.TypeA, "NOERROR ns.dns.cluster.local. A 10.96.0.10"},
		{"outside, with nobody to ask", "example.org.", dns.TypeA, "SERVFAIL"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			m := s.ask(t, c.name, c.qtype)
			if got := brief(m); got != c.want {
				t.Errorf("%s %s\n got %s\nwant %s", c.name, dns.TypeToString[c.qtype], got, c.want)
			}
			if m.Question[0].Name != c.name {
				t.Errorf("the question came back as %s", m.Question[0].Name)
			}
		})
	}
}

func TestChangesAreAnswered(t *testing.T) {
	s := start(t, true, dnsaddon.Config{}, cluster()...)
	ctx := t.Context()
	becomes := func(name, want string) {
		t.Helper()
		eventually(t, func() error {
			if got := brief(s.ask(t, name, dns.TypeA)); got != want {
				return fmt.Errorf("%s: got %s, want %s", name, got, want)
			}
			return nil
		})
	}
	if _, err := s.client.CoreV1().Services("fresh").Create(ctx, service("fresh", "new", clusterIP("10.96.0.9")), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	becomes("new.fresh.svc.cluster.local.", "NOERROR new.fresh.svc.cluster.local. A 10.96.0.9")
	becomes("fresh.svc.cluster.local.", "NOERROR soa")
	if err := s.client.CoreV1().Services("fresh").Delete(ctx, "new", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	becomes("new.fresh.svc.cluster.local.", "NXDOMAIN soa")
	becomes("fresh.svc.cluster.local.", "NXDOMAIN soa")
	eps := slice("default", "db", endpoint("10.244.2.6", "p2", "db-2", true))
	if _, err := s.client.DiscoveryV1().EndpointSlices("default").Update(ctx, eps, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	becomes("db.default.svc.cluster.local.", "NOERROR db.default.svc.cluster.local. A 10.244.2.6")
	becomes("db-0.db.default.svc.cluster.local.", "NXDOMAIN soa")
}

func TestEndpointsOfADeadPeerAreLeftOutButNotTheLast(t *testing.T) {
	s := start(t, true, dnsaddon.Config{}, cluster()...)
	becomes := func(want string) {
		t.Helper()
		eventually(t, func() error {
			m := s.ask(t, "db.default.svc.cluster.local.", dns.TypeA)
			if got := brief(m); got != want {
				return fmt.Errorf("got %s, want %s", got, want)
			}
			return nil
		})
	}
	both := "NOERROR db.default.svc.cluster.local. A 10.244.1.5; db.default.svc.cluster.local. A 10.244.2.5"
	becomes(both)
	s.view.Set(member.Peer{Name: "p2", State: member.Suspect})
	becomes(both)
	s.view.Set(member.Peer{Name: "p2", State: member.Dead})
	becomes("NOERROR db.default.svc.cluster.local. A 10.244.1.5")
	s.view.Set(member.Peer{Name: "p1", State: member.Dead}, member.Peer{Name: "p2", State: member.Dead})
	becomes(both)
}

func TestBeforeTheFirstSyncTheClusterIsTryAgain(t *testing.T) {
	s := start(t, false, dnsaddon.Config{}, cluster()...)
	for _, name := range []string{"web.default.svc.cluster.local.", "none.default.svc.cluster.local."} {
		if got := brief(s.ask(t, name, dns.TypeA)); got != "SERVFAIL" {
			t.Errorf("%s: got %s", name, got)
		}
	}
}

func TestABigAnswerIsCutForUDPAndWholeOverTCP(t *testing.T) {
	var eps []discoveryv1.Endpoint
	for i := range 200 {
		eps = append(eps, endpoint(fmt.Sprintf("10.244.7.%d", i+1), "p1", "", true))
	}
	s := start(t, true, dnsaddon.Config{}, service("default", "big", headless), slice("default", "big", eps...))
	m := new(dns.Msg)
	m.SetQuestion("big.default.svc.cluster.local.", dns.TypeA)
	if r := s.exchange(t, "udp", m); !r.Truncated || r.Len() > 512 {
		t.Errorf("plain: truncated %v, %d bytes", r.Truncated, r.Len())
	}
	if r := s.exchange(t, "tcp", m); r.Truncated || len(r.Answer) != 200 {
		t.Errorf("tcp: truncated %v, %d answers", r.Truncated, len(r.Answer))
	}
	m.SetEdns0(4096, true)
	r := s.exchange(t, "udp", m)
	if !r.Truncated || r.Len() > 1232 || len(r.Answer) < 40 {
		t.Errorf("edns: truncated %v, %d bytes, %d answers", r.Truncated, r.Len(), len(r.Answer))
	}
	if opt := r.IsEdns0(); opt == nil || !opt.Do() {
		t.Errorf("edns: the option record is missing: %v", r)
	}
}

func TestWhatIsNoQuestionGetsItsError(t *testing.T) {
	s := start(t, true, dnsaddon.Config{}, cluster()...)
	m := new(dns.Msg)
	m.SetQuestion("web.default.svc.cluster.local.", dns.TypeA)
	m.Opcode = dns.OpcodeUpdate
	if r := s.exchange(t, "udp", m); r.Rcode != dns.RcodeNotImplemented {
		t.Errorf("update: %s", dns.RcodeToString[r.Rcode])
	}
	m.Opcode = dns.OpcodeQuery
	m.Question[0].Qclass = dns.ClassCHAOS
	if r := s.exchange(t, "udp", m); r.Rcode != dns.RcodeRefused {
		t.Errorf("chaos: %s", dns.RcodeToString[r.Rcode])
	}
	m.Question[0].Qclass = dns.ClassINET
	m.SetEdns0(1232, false)
	m.IsEdns0().SetVersion(7)
	if r := s.exchange(t, "udp", m); r.Rcode != dns.RcodeBadVers {
		t.Errorf("edns 7: %s", dns.RcodeToString[r.Rcode])
	}
}
