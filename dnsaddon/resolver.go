package dnsaddon

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	maxChase      = 8 // ExternalNames that lead to each other
	maxName       = 254
	reloadAfter   = 5 * time.Second
	defaultAnswer = 512 // bytes of a UDP answer to who does not say more
)

// resolver answers messages: for the cluster's zone out of the index, for the
// rest from upstream.
type resolver struct {
	zone    *zone
	forward *forwarder
	ready   atomic.Bool // the index has been filled
	upstream
}

// upstream is where the resolver configuration comes from.
type upstream struct {
	path   string // empty: fixed
	own    []netip.Addr
	search atomic.Pointer[[]string]

	mu      sync.Mutex // guards the fields below
	checked time.Time
}

// handle answers one message. Without wait it returns nil when that would
// take asking somebody; the caller then calls again with wait. It never
// changes req.
func (r *resolver) handle(ctx context.Context, req *dns.Msg, client netip.Addr, wait bool) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(req)
	m.RecursionAvailable, m.Compress = true, true
	switch opt := req.IsEdns0(); {
	case req.Opcode != dns.OpcodeQuery:
		m.Rcode = dns.RcodeNotImplemented
		return m
	case len(req.Question) != 1:
		m.Rcode = dns.RcodeFormatError
		return m
	case opt != nil && opt.Version() != 0:
		m.SetEdns0(udpSize, false)
		m.Rcode = dns.RcodeBadVers
		return m
	case req.Question[0].Qclass != dns.ClassINET:
		m.Rcode = dns.RcodeRefused
		return m
	}
	q := req.Question[0]
	lower := strings.ToLower(q.Name)
	if rel, ok := r.zone.in(lower); ok {
		if !r.ready.Load() {
			m.Rcode = dns.RcodeServerFailure
			return m
		}
		return r.cluster(ctx, m, rel, client, wait)
	}
	if strings.HasSuffix(lower, ".arpa.") && r.ready.Load() {
		if a, ok := r.zone.reverse(q.Name, lower, q.Qtype); ok {
			return r.fill(m, a)
		}
	}
	return r.outside(ctx, m, question{lower, q.Qtype, wantsDNSSEC(req)}, wait)
}

func wantsDNSSEC(req *dns.Msg) bool {
	opt := req.IsEdns0()
	return opt != nil && opt.Do()
}

// fill makes m the zone's answer.
func (r *resolver) fill(m *dns.Msg, a answer) *dns.Msg {
	m.Authoritative = true
	m.Rcode, m.Answer, m.Extra = a.rcode, a.rrs, a.extra
	if len(a.rrs) == 0 {
		m.Ns = []dns.RR{r.zone.soa()}
	} else if n := len(a.rrs); n > 1 {
		rand.Shuffle(n, func(i, j int) { a.rrs[i], a.rrs[j] = a.rrs[j], a.rrs[i] })
	}
	return m
}

// cluster answers for a name in the zone.
func (r *resolver) cluster(ctx context.Context, m *dns.Msg, rel string, client netip.Addr, wait bool) *dns.Msg {
	q := m.Question[0]
	a := r.zone.answer(q.Name, rel, q.Qtype)
	if a.target != "" {
		return r.chase(ctx, m, a, wait)
	}
	if a.rcode == dns.RcodeNameError {
		found, pending := r.searched(ctx, m, rel, client, wait)
		if pending {
			return nil
		}
		if found {
			return m
		}
	}
	return r.fill(m, a)
}

// chase follows an ExternalName to its addresses.
func (r *resolver) chase(ctx context.Context, m *dns.Msg, a answer, wait bool) *dns.Msg {
	qtype := m.Question[0].Qtype
	m.Authoritative = true
	m.Answer = a.rrs
	for range maxChase {
		rel, ok := r.zone.in(a.target)
		if !ok {
			up, pending := r.lookup(ctx, question{a.target, qtype, false}, wait)
			if pending {
				return nil
			}
			if up != nil {
				m.Answer = append(m.Answer, up.Answer...)
			}
			return m
		}
		a = r.zone.answer(a.target, rel, qtype)
		m.Answer = append(m.Answer, a.rrs...)
		if a.target == "" {
			return m
		}
	}
	m.Answer, m.Rcode = nil, dns.RcodeServerFailure // they go in a circle
	return m
}

// searched walks a pod's search path in its place: the pod asked for a name
// with the first search domain appended, and would come back with the next
// one. The first name that exists is answered under the name asked, as its
// alias. It is an optimization: whatever goes wrong, the pod gets the plain
// "no such name" and walks the path itself. It reports whether m is answered,
// and whether that takes waiting.
func (r *resolver) searched(ctx context.Context, m *dns.Msg, rel string, client netip.Addr, wait bool) (found, pending bool) {
	q := m.Question[0]
	if q.Qtype != dns.TypeA && q.Qtype != dns.TypeAAAA {
		return false, false
	}
	spot, ok := r.zone.index.pods.get(client)
	if !ok {
		return false, false
	}
	plain, ok := strings.CutSuffix(rel, "."+spot.namespace+".svc")
	if !ok || plain == "" {
		return false, false
	}
	for _, rel := range []string{plain + ".svc", plain} {
		name := rel + "." + r.zone.domain
		if a := r.zone.answer(name, rel, q.Qtype); a.rcode == dns.RcodeSuccess && a.target == "" {
			r.fill(m, a)
			r.alias(m, name)
			return true, false
		}
	}
	for _, name := range r.candidates(plain) {
		up, pending := r.lookup(ctx, question{name, q.Qtype, false}, wait)
		switch {
		case pending:
			return false, true
		case up == nil || (up.Rcode != dns.RcodeSuccess && up.Rcode != dns.RcodeNameError):
			return false, false
		case up.Rcode == dns.RcodeSuccess:
			m.Answer, m.Ns = up.Answer, up.Ns
			r.alias(m, name)
			return true, false
		}
	}
	return false, false
}

// candidates are the rest of a pod's search path: the machine's own domains,
// then the name as it is. A single label is nobody's name outside.
func (r *resolver) candidates(plain string) []string {
	var out []string
	if s := r.search.Load(); s != nil {
		for _, domain := range *s {
			out = append(out, plain+"."+domain)
		}
	}
	if strings.Contains(plain, ".") {
		out = append(out, plain+".")
	}
	kept := out[:0]
	for _, name := range out {
		if _, local := r.zone.in(name); !local && len(name) <= maxName {
			kept = append(kept, name)
		}
	}
	return kept
}

// alias puts the name asked before what was found under another. Without
// records there is nothing to alias: the answer says "no such data".
func (r *resolver) alias(m *dns.Msg, name string) {
	if len(m.Answer) == 0 {
		m.Authoritative, m.Ns = true, []dns.RR{r.zone.soa()}
		return
	}
	c := &dns.CNAME{Hdr: r.zone.header(m.Question[0].Name, dns.TypeCNAME), Target: name}
	m.Answer = append([]dns.RR{c}, m.Answer...)
}

// outside answers for a name that is not the cluster's.
func (r *resolver) outside(ctx context.Context, m *dns.Msg, q question, wait bool) *dns.Msg {
	up, pending := r.lookup(ctx, q, wait)
	switch {
	case pending:
		return nil
	case up == nil:
		m.Rcode = dns.RcodeServerFailure
		return m
	}
	m.Rcode, m.AuthenticatedData = up.Rcode, up.AuthenticatedData
	m.Answer, m.Ns, m.Extra = up.Answer, up.Ns, up.Extra
	restoreCase(m, q.name)
	return m
}

// restoreCase writes the first names of the answer as they were asked: some
// clients compare them byte by byte.
func restoreCase(m *dns.Msg, lower string) {
	asked := m.Question[0].Name
	if asked == lower {
		return
	}
	for i, rr := range m.Answer {
		if strings.EqualFold(rr.Header().Name, lower) {
			m.Answer[i] = dns.Copy(rr)
			m.Answer[i].Header().Name = asked
		}
	}
}

// lookup is the forwarder's answer, or nil if there is none.
func (r *resolver) lookup(ctx context.Context, q question, wait bool) (m *dns.Msg, pending bool) {
	if !wait {
		m = r.forward.cache.get(q, time.Now(), false)
		return m, m == nil
	}
	r.reload()
	m, err := r.forward.resolve(ctx, q)
	if err != nil {
		return nil, false
	}
	return m, false
}

// reload reads the resolver configuration again when some time has passed
// since the last look; it costs nothing while nobody asks. A file that cannot
// be read leaves everything as it was.
func (r *resolver) reload() {
	if r.path == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.checked) >= reloadAfter {
		r.checked = now
		if servers, search, err := resolvConf(r.path, r.own); err == nil {
			r.forward.setServers(servers)
			r.search.Store(&search)
		}
	}
}

// finish fits an answer to the asker's transport.
func finish(m, req *dns.Msg, udp bool) {
	size := dns.MaxMsgSize
	if udp {
		size = defaultAnswer
	}
	if opt := req.IsEdns0(); opt != nil {
		if m.IsEdns0() == nil {
			m.SetEdns0(udpSize, opt.Do())
		}
		if udp {
			size = min(max(size, int(opt.UDPSize())), udpSize)
		}
	}
	m.Truncate(size)
}
