package dnsaddon_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"skein.dev/skein/api/component"
	"skein.dev/skein/dnsaddon"
)

// BenchmarkQueries asks for the cluster IPs of 1,000 services over UDP, from
// 16 client sockets with 16 questions under way on each. Server and clients
// share the machine.
func BenchmarkQueries(b *testing.B) {
	for _, count := range []int{1, 8} {
		b.Run(fmt.Sprintf("sockets=%d", count), func(b *testing.B) { benchmark(b, count) })
	}
}

func benchmark(b *testing.B, count int) {
	b.Helper()
	var objects []runtime.Object
	var questions [][]byte
	for i := range 1000 {
		name := fmt.Sprintf("svc-%d", i)
		objects = append(objects, service("default", name, clusterIP(fmt.Sprintf("10.97.%d.%d", i/250, i%250+1))))
		m := new(dns.Msg)
		m.SetQuestion(name+".default.svc.cluster.local.", dns.TypeA)
		m.SetEdns0(1232, false)
		q, err := m.Pack()
		if err != nil {
			b.Fatal(err)
		}
		questions = append(questions, q)
	}
	factory := informers.NewSharedInformerFactory(fake.NewClientset(objects...), 0)
	d, err := dnsaddon.New(dnsaddon.Config{
		Kit:       component.Kit{Peer: "p1", Informers: factory},
		Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Port: 15353, Sockets: count,
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	factory.Start(ctx.Done())
	defer func() {
		cancel()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}()
	to := netip.MustParseAddrPort("127.0.0.1:15353")
	s := &server{addr: to.String()}
	eventually(b, func() error {
		m := new(dns.Msg)
		m.SetQuestion("svc-999.default.svc.cluster.local.", dns.TypeA)
		c := dns.Client{}
		if r, _, err := c.Exchange(m, s.addr); err != nil || len(r.Answer) != 1 {
			return fmt.Errorf("not ready: %w", err)
		}
		return nil
	})
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			buf := make([]byte, 2048)
			for i := range 16 {
				_, _ = c.Write(questions[i])
			}
			for n := left.Add(-1); n >= 0; n = left.Add(-1) {
				// What a full socket buffer swallowed is asked again.
				_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				if _, err := c.Read(buf); err != nil {
					left.Add(1)
				}
				_, _ = c.Write(questions[n%1000])
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "queries/s")
}
