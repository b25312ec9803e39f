package dnsaddon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

const (
	upstreamTimeout = 1500 * time.Millisecond // one server, one try
	upstreamRounds  = 2
	udpSize         = 1232 // what passes everywhere unfragmented (DNS flag day 2020)
	staleTTL        = 5
)

// ErrNoUpstream means that there is no server to ask.
var ErrNoUpstream = errors.New("no upstream resolver")

// forwarder asks upstream resolvers, once for all who ask the same at the
// same time, and remembers their answers.
type forwarder struct {
	servers atomic.Pointer[[]netip.AddrPort]
	best    atomic.Uint32 // which server answered last
	cache   *memory
	flight  singleflight.Group
}

func newForwarder(entries int) *forwarder {
	f := &forwarder{cache: newMemory(entries)}
	f.servers.Store(&[]netip.AddrPort{})
	return f
}

// question is what a cached answer answers.
type question struct {
	name   string // lower case
	qtype  uint16
	dnssec bool
}

func (q question) String() string {
	return q.name + " " + strconv.Itoa(int(q.qtype)) + " " + strconv.FormatBool(q.dnssec)
}

// resolve returns the answer to q, from memory or from upstream, as the
// caller's own copy. When nobody upstream answers, it returns what it
// remembers, be it old.
func (f *forwarder) resolve(ctx context.Context, q question) (*dns.Msg, error) {
	if m := f.cache.get(q, time.Now(), false); m != nil {
		return m, nil
	}
	// The first asker's context must not end the others' wait.
	wait := f.flight.DoChan(q.String(), func() (any, error) {
		return f.ask(context.WithoutCancel(ctx), q)
	})
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("ask upstream for %s: %w", q.name, ctx.Err())
	case r := <-wait:
		if m, ok := r.Val.(*dns.Msg); ok && r.Err == nil {
			return aged(m, func(ttl uint32) uint32 { return ttl }), nil
		}
		if m := f.cache.get(q, time.Now(), true); m != nil {
			return m, nil
		}
		return nil, r.Err
	}
}

func (f *forwarder) ask(ctx context.Context, q question) (*dns.Msg, error) {
	servers := *f.servers.Load()
	if len(servers) == 0 {
		return nil, ErrNoUpstream
	}
	req := new(dns.Msg)
	req.SetQuestion(q.name, q.qtype)
	req.SetEdns0(udpSize, q.dnssec)
	var errs []error
	first := int(f.best.Load())
	for try := range upstreamRounds * len(servers) {
		n := (first + try) % len(servers)
		m, err := exchange(ctx, req, servers[n])
		if err == nil && (m.Rcode == dns.RcodeServerFailure || m.Rcode == dns.RcodeRefused) && try < len(servers)-1 {
			err = fmt.Errorf("%s says %s", servers[n], dns.RcodeToString[m.Rcode])
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		f.best.Store(uint32(n))
		f.cache.put(q, m, time.Now())
		return m, nil
	}
	return nil, fmt.Errorf("ask upstream for %s: %w", q.name, errors.Join(errs...))
}

// exchange asks one server, over TCP when its answer was cut short.
func exchange(ctx context.Context, req *dns.Msg, server netip.AddrPort) (*dns.Msg, error) {
	req = req.Copy()
	req.Id = dns.Id()
	udp := dns.Client{Net: "udp", Timeout: upstreamTimeout, UDPSize: udpSize}
	m, _, err := udp.ExchangeContext(ctx, req, server.String())
	if err == nil && m.Truncated {
		tcp := dns.Client{Net: "tcp", Timeout: upstreamTimeout}
		m, _, err = tcp.ExchangeContext(ctx, req, server.String())
	}
	if err != nil {
		return nil, err
	}
	if len(m.Question) != 1 || !strings.EqualFold(m.Question[0].Name, req.Question[0].Name) || m.Question[0].Qtype != req.Question[0].Qtype {
		return nil, fmt.Errorf("%s answered another question", server)
	}
	// The option record belongs to our exchange with the server.
	extra := m.Extra[:0]
	for _, rr := range m.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			extra = append(extra, rr)
		}
	}
	m.Extra = extra
	return m, nil
}

// setServers changes where questions go.
func (f *forwarder) setServers(servers []netip.AddrPort) { f.servers.Store(&servers) }

// resolvConf reads a resolver configuration: the servers, without those that
// would come back to us, and the search domains, fully qualified.
func resolvConf(path string, own []netip.Addr) (servers []netip.AddrPort, search []string, err error) {
	c, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read resolver configuration: %w", err)
	}
	for _, s := range c.Servers {
		host, zone, _ := strings.Cut(s, "%")
		a, err := netip.ParseAddr(host)
		if err != nil || contains(own, a) {
			continue
		}
		p, err := strconv.ParseUint(c.Port, 10, 16)
		if err != nil {
			continue
		}
		servers = append(servers, netip.AddrPortFrom(a.WithZone(zone), uint16(p)))
	}
	for _, s := range c.Search {
		search = append(search, strings.ToLower(dns.Fqdn(s)))
	}
	return servers, search, nil
}

func contains(all []netip.Addr, a netip.Addr) bool {
	return slices.Contains(all, a)
}
