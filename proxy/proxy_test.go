package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"skein.dev/skein/api/component"
	"skein.dev/skein/api/member"
	"skein.dev/skein/api/member/membertest"
	"skein.dev/skein/network/lb"
	"skein.dev/skein/network/lb/lbtest"
	"skein.dev/skein/proxy"
)

type peer struct {
	checks  sync.Map // health checks' addresses by port
	client  *fake.Clientset
	kernel  *lbtest.Kernel
	view    *membertest.View
	ports   *lb.Feed
	settled atomic.Bool
}

func start(t *testing.T, kernel *lbtest.Kernel, settled bool, objects ...runtime.Object) *peer {
	t.Helper()
	return startWith(t, kernel, settled, nil, objects...)
}

// startWith starts a proxy that is told of host ports, too.
func startWith(t *testing.T, kernel *lbtest.Kernel, settled bool, ports *lb.Feed, objects ...runtime.Object) *peer {
	t.Helper()
	p := &peer{client: fake.NewClientset(objects...), kernel: kernel, view: &membertest.View{}, ports: ports}
	p.settled.Store(settled)
	factory := informers.NewSharedInformerFactory(p.client, 0)
	x, err := proxy.New(proxy.Config{
		Kit:     component.Kit{Peer: "p1", Informers: factory, Settled: p.settled.Load},
		Backend: kernel.Open(t), View: p.view, Ports: ports,
		Listen: func(_ context.Context, port uint16) (net.Listener, error) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err == nil {
				p.checks.Store(port, l.Addr().String())
			}
			return l, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	factory.Start(ctx.Done())
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		factory.Shutdown()
	})
	return p
}

// becomes waits until the kernel has these services.
func (p *peer) becomes(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for range 300 {
		got = nil
		for _, s := range p.kernel.Services() {
			l := s.Name
			for _, b := range s.Backends {
				l += " " + b.Addr().String()
			}
			got = append(got, l)
		}
		if slices.Equal(got, want) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("\n got %s\nwant %s", strings.Join(got, "; "), strings.Join(want, "; "))
}

func service(name, ip string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
		Spec: corev1.ServiceSpec{
			ClusterIP: ip, ClusterIPs: []string{ip},
			Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}},
		},
	}
}

// slice is one with endpoints "address@node".
func slice(service string, eps ...string) *discoveryv1.EndpointSlice {
	port, proto, name := int32(8080), corev1.ProtocolTCP, ""
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: service + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: service},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &proto}},
	}
	for _, e := range eps {
		ip, node, _ := strings.Cut(e, "@")
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{ip}, NodeName: &node})
	}
	return s
}

func TestTheKernelFollowsTheCluster(t *testing.T) {
	p := start(t, &lbtest.Kernel{}, true, service("a", "10.96.0.1"), slice("a", "10.1.0.1@p1"), service("b", "10.96.0.2"))
	ctx := t.Context()
	p.becomes(t, "ns/a 10.1.0.1", "ns/b")
	if _, err := p.client.DiscoveryV1().EndpointSlices("ns").Create(ctx, slice("b", "10.1.0.2@p2"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p.becomes(t, "ns/a 10.1.0.1", "ns/b 10.1.0.2")
	before := p.kernel.Writes()
	if _, err := p.client.DiscoveryV1().EndpointSlices("ns").Update(ctx, slice("a", "10.1.0.1@p1", "10.1.0.3@p3"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	p.becomes(t, "ns/a 10.1.0.1 10.1.0.3", "ns/b 10.1.0.2")
	if n := p.kernel.Writes() - before; n != 1 {
		t.Errorf("one service changed, %d were written", n)
	}
	if err := p.client.CoreV1().Services("ns").Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	p.becomes(t, "ns/b 10.1.0.2")
}

func TestAnAddressPassesFromOneServiceToTheNext(t *testing.T) {
	p := start(t, &lbtest.Kernel{}, true, service("a", "10.96.0.1"))
	p.becomes(t, "ns/a")
	for i := range 5 {
		old, next := "a", fmt.Sprintf("a%d", i)
		if i > 0 {
			old = fmt.Sprintf("a%d", i-1)
		}
		if err := p.client.CoreV1().Services("ns").Delete(t.Context(), old, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := p.client.CoreV1().Services("ns").Create(t.Context(), service(next, "10.96.0.1"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		p.becomes(t, "ns/"+next)
	}
}

func TestEndpointsOfADeadPeerGoAtOnceAndComeBack(t *testing.T) {
	p := start(t, &lbtest.Kernel{}, true, service("a", "10.96.0.1"), slice("a", "10.1.0.1@p1", "10.1.0.2@p2"))
	p.becomes(t, "ns/a 10.1.0.1 10.1.0.2")
	p.view.Set(member.Peer{Name: "p2", State: member.Dead})
	p.becomes(t, "ns/a 10.1.0.1")
	p.view.Set(member.Peer{Name: "p2", State: member.Restarting})
	p.becomes(t, "ns/a 10.1.0.1 10.1.0.2")
}

func TestBeforeItIsSettledTheKernelIsAdopted(t *testing.T) {
	kernel := &lbtest.Kernel{}
	left := func(name, ip, backend string) lb.Service {
		return lb.Service{
			Front: lb.Front{Addr: netip.MustParseAddr(ip), Protocol: lb.TCP, Port: 80},
			Name:  name, Backends: []netip.AddrPort{netip.MustParseAddrPort(backend)},
		}
	}
	err := kernel.Open(t).Apply(t.Context(), lb.Change{Set: []lb.Service{
		left("old/gone", "10.96.0.9", "10.1.0.9:80"), left("old/a", "10.96.0.1", "10.1.0.8:80"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, kernel, false, service("a", "10.96.0.1"), slice("a", "10.1.0.1@p1"), service("b", "10.96.0.2"))
	p.becomes(t, "old/a 10.1.0.8", "ns/b", "old/gone 10.1.0.9")
	if err := p.client.CoreV1().Services("ns").Delete(t.Context(), "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	p.settled.Store(true)
	p.becomes(t, "ns/a 10.1.0.1")
}

func TestWhatTheKernelRefusesIsTriedAgain(t *testing.T) {
	kernel := &lbtest.Kernel{}
	p := start(t, kernel, true, service("a", "10.96.0.1"))
	p.becomes(t, "ns/a")
	kernel.Fail(errors.New("no memory"))
	if _, err := p.client.CoreV1().Services("ns").Create(t.Context(), service("b", "10.96.0.2"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if err := p.client.CoreV1().Services("ns").Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	kernel.Fail(nil)
	p.becomes(t, "ns/b")
}

func TestServicesThatSomebodyRemovedAreWrittenAgain(t *testing.T) {
	p := start(t, &lbtest.Kernel{}, true, service("a", "10.96.0.1"))
	p.becomes(t, "ns/a")
	p.kernel.Flush(t)
	p.becomes(t, "ns/a")
}

// health asks as a load balancer does.
func (p *peer) health(t *testing.T, port uint16) (int, string) {
	t.Helper()
	at, ok := p.checks.Load(port)
	if !ok {
		return 0, ""
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at.(string)+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestLoadBalancersHearWhereEndpointsAre(t *testing.T) {
	svc := service("a", "10.96.0.1")
	svc.Spec.Type, svc.Spec.ExternalTrafficPolicy = corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal
	svc.Spec.HealthCheckNodePort = 31000
	p := start(t, &lbtest.Kernel{}, true, svc, slice("a", "10.1.0.2@p2"))
	says := func(code int, body string) {
		t.Helper()
		var gotCode int
		var got string
		for range 300 {
			if gotCode, got = p.health(t, 31000); gotCode == code && strings.Contains(got, body) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("got %d %q, want %d %q", gotCode, got, code, body)
	}
	says(http.StatusServiceUnavailable, `"localEndpoints":0`)
	if _, err := p.client.DiscoveryV1().EndpointSlices("ns").Update(t.Context(), slice("a", "10.1.0.1@p1", "10.1.0.2@p2"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	says(http.StatusOK, `"localEndpoints":1,"service":{"name":"a","namespace":"ns"}`)
	svc = svc.DeepCopy()
	svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	if _, err := p.client.CoreV1().Services("ns").Update(t.Context(), svc, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	says(0, "refused")
}
