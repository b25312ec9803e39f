package dnsaddon_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/dnsaddon"
)

// upstream is a resolver of the world outside.
type upstream struct {
	addr  netip.AddrPort
	asked atomic.Int64
	down  atomic.Bool
	gate  atomic.Pointer[chan struct{}] // when set, answers wait for it

	mu    sync.Mutex // guards the fields below
	names []string
}

func (u *upstream) ServeDNS(w dns.ResponseWriter, req *dns.Msg) {
	q := req.Question[0]
	u.asked.Add(1)
	u.mu.Lock()
	u.names = append(u.names, q.Name)
	u.mu.Unlock()
	if g := u.gate.Load(); g != nil {
		<-*g
	}
	if u.down.Load() {
		return
	}
	m := new(dns.Msg)
	m.SetReply(req)
	add := func(s string) {
		rr, err := dns.NewRR(s)
		if err != nil {
			panic(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	name := strings.ToLower(q.Name)
	_, udp := w.RemoteAddr().(*net.UDPAddr)
	switch {
	case name == "big.example." && udp:
		m.Truncated = true
	case name == "big.example.":
		for i := range 300 {
			add(fmt.Sprintf("big.example. 60 A 192.0.2.%d", i%250+1))
		}
	case strings.HasSuffix(name, ".example.") && q.Qtype == dns.TypeA:
		add(name + " 300 A 192.0.2.1")
	case strings.HasSuffix(name, ".example."):
		soa, _ := dns.NewRR("example. 60 SOA ns.example. h.example. 1 2 3 4 60")
		m.Ns = []dns.RR{soa}
	case name == "passing.test.":
		add("passing.test. 1 A 192.0.2.2")
	default:
		m.Rcode = dns.RcodeNameError
		soa, _ := dns.NewRR(". 60 SOA ns. h. 1 2 3 4 60")
		m.Ns = []dns.RR{soa}
	}
	_ = w.WriteMsg(m)
}

func startUpstream(tb testing.TB) *upstream {
	tb.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("tcp4", pc.LocalAddr().String())
	if err != nil {
		tb.Fatal(err)
	}
	u := &upstream{addr: netip.MustParseAddrPort(pc.LocalAddr().String())}
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: u}, {Listener: l, Handler: u}} {
		go func() { _ = s.ActivateAndServe() }()
		tb.Cleanup(func() { _ = s.Shutdown() })
	}
	return u
}

func (u *upstream) config() dnsaddon.Config {
	return dnsaddon.Config{Upstream: []netip.AddrPort{u.addr}}
}

func TestAnAnswerFromOutsideIsAskedForOnce(t *testing.T) {
	u := startUpstream(t)
	s := start(t, true, u.config())
	for _, name := range []string{"www.example.", "WWW.example.", "www.EXAMPLE."} {
		if got, want := brief(s.ask(t, name, dns.TypeA)), "NOERROR "+name+" A 192.0.2.1"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for range 3 {
		if got := brief(s.ask(t, "none.test.", dns.TypeA)); got != "NXDOMAIN soa" {
			t.Errorf("got %s", got)
		}
	}
	if n := u.asked.Load(); n != 2 {
		t.Errorf("upstream was asked %d times, want 2", n)
	}
}

func TestManyWhoAskTheSameAreOneQuestionUpstream(t *testing.T) {
	u := startUpstream(t)
	gate := make(chan struct{})
	u.gate.Store(&gate)
	s := start(t, true, u.config())
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got := brief(s.ask(t, "www.example.", dns.TypeA)); got != "NOERROR www.example. A 192.0.2.1" {
				t.Errorf("got %s", got)
			}
		})
	}
	eventually(t, func() error {
		if u.asked.Load() == 0 {
			return fmt.Errorf("not asked yet")
		}
		return nil
	})
	close(gate)
	wg.Wait()
	if n := u.asked.Load(); n != 1 {
		t.Errorf("upstream was asked %d times, want once", n)
	}
}

func TestAnAnswerTooBigForUDPIsFetchedOverTCP(t *testing.T) {
	s := start(t, true, startUpstream(t).config())
	m := new(dns.Msg)
	m.SetQuestion("big.example.", dns.TypeA)
	if r := s.exchange(t, "tcp", m); len(r.Answer) != 300 {
		t.Errorf("got %d answers, want 300", len(r.Answer))
	}
}

func TestTheNextServerIsAskedWhenOneFails(t *testing.T) {
	u := startUpstream(t)
	c := u.config()
	c.Upstream = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1"), u.addr}
	s := start(t, true, c)
	if got := brief(s.ask(t, "www.example.", dns.TypeA)); got != "NOERROR www.example. A 192.0.2.1" {
		t.Errorf("got %s", got)
	}
}

// onThisPeer is a pod whose address is the tests' own, so that they ask in
// its name.
func onThisPeer() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "client"},
		Spec:       corev1.PodSpec{NodeName: "p1"},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "127.0.0.1"}}},
	}
}

func TestAPodsSearchPathIsWalkedInOneTrip(t *testing.T) {
	u := startUpstream(t)
	s := start(t, true, u.config(), append(cluster(), onThisPeer(), service("other", "web", clusterIP("10.96.1.1")))...)
	for _, c := range []struct{ rule, name, want string }{
		{"another namespace's service", "web.other", "NOERROR web.other.default.svc.cluster.local. CNAME web.other.svc.cluster.local.; web.other.svc.cluster.local. A 10.96.1.1"},
		{"a name with svc", "web.other.svc", "NOERROR web.other.svc.cluster.local. A 10.96.1.1; web.other.svc.default.svc.cluster.local. CNAME web.other.svc.cluster.local."},
		{"a name outside", "www.example", "NOERROR www.example. A 192.0.2.1; www.example.default.svc.cluster.local. CNAME www.example."},
		{"a service of the pod's own namespace", "web", "NOERROR web.default.svc.cluster.local. A 10.96.0.7"},
		{"a single label is not asked for outside", "nobody", "NXDOMAIN soa"},
		{"nobody's name", "no.test", "NXDOMAIN soa"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			if got := brief(s.ask(t, c.name+".default.svc.cluster.local.", dns.TypeA)); got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
		})
	}
	if got := brief(s.ask(t, "www.example.default.svc.cluster.local.", dns.TypeAAAA)); got != "NOERROR soa" {
		t.Errorf("the other family: got %s", got)
	}
	if got := brief(s.ask(t, "www.example.other.svc.cluster.local.", dns.TypeA)); got != "NXDOMAIN soa" {
		t.Errorf("not the pod's search path: got %s", got)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, name := range u.names {
		if strings.Contains(name, "cluster.local") || name == "nobody." {
			t.Errorf("%s was asked for outside", name)
		}
	}
}

func TestWhoIsNoPodOfThisPeerGetsThePlainAnswer(t *testing.T) {
	s := start(t, true, startUpstream(t).config(), cluster()...)
	if got := brief(s.ask(t, "www.example.default.svc.cluster.local.", dns.TypeA)); got != "NXDOMAIN soa" {
		t.Errorf("got %s", got)
	}
}

func TestTheResolverConfigurationIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	// The cluster's own address is skipped, or questions would go round.
	if err := os.WriteFile(path, []byte("nameserver 10.96.0.10\nnameserver 127.0.0.1\nsearch corp.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := dnsaddon.ReadResolvConf(t, path, netip.MustParseAddr("10.96.0.10"))
	if want := "[127.0.0.1:53] [corp.example.]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
