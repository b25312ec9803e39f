package dnsaddon

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// answer is what the cluster's own zone says to a question.
type answer struct {
	rcode  int
	rrs    []dns.RR
	extra  []dns.RR
	target string // an ExternalName: the name to go on with
}

// specVersion is the version of the Kubernetes DNS specification answered by.
const specVersion = "1.1.0"

// zone answers for the cluster's domain out of an index. It has no state of
// its own and is safe for concurrent use.
type zone struct {
	domain  string // lower case, fully qualified
	ttl     uint32
	servers []netip.Addr
	index   *index
}

// in reports whether a name (lower case, fully qualified) is in the zone, and
// its part before the zone, without the dot.
func (z *zone) in(name string) (rel string, ok bool) {
	if name == z.domain {
		return "", true
	}
	rel, ok = strings.CutSuffix(name, "."+z.domain)
	return rel, ok
}

func (z *zone) soa() dns.RR {
	return &dns.SOA{
		Hdr: z.header(z.domain, dns.TypeSOA), Ns: "ns.dns." + z.domain, Mbox: "hostmaster." + z.domain,
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: z.ttl,
	}
}

func (z *zone) header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: z.ttl}
}

// answer looks a question up. qname is the name as asked, whose spelling the
// records keep; rel is its part before the zone, in lower case.
func (z *zone) answer(qname, rel string, qtype uint16) answer {
	if rel == "" {
		return z.apex(qname, qtype)
	}
	if rel == "dns-version" {
		if qtype != dns.TypeTXT {
			return answer{}
		}
		return answer{rrs: []dns.RR{&dns.TXT{Hdr: z.header(qname, dns.TypeTXT), Txt: []string{specVersion}}}}
	}
	rest, top := cutLast(rel)
	switch top {
	case "svc":
		return z.underSvc(qname, rest, qtype)
	case "pod":
		return z.underPod(qname, rest, qtype)
	case "dns":
		if rest == "" {
			return answer{}
		}
		if rest == "ns" {
			return answer{rrs: z.addresses(qname, z.servers, qtype)}
		}
	}
	return answer{rcode: dns.RcodeNameError}
}

func (z *zone) apex(qname string, qtype uint16) answer {
	switch qtype {
	case dns.TypeSOA:
		return answer{rrs: []dns.RR{z.soa()}}
	case dns.TypeNS:
		ns := "ns.dns." + z.domain
		extra := append(z.addresses(ns, z.servers, dns.TypeA), z.addresses(ns, z.servers, dns.TypeAAAA)...)
		return answer{rrs: []dns.RR{&dns.NS{Hdr: z.header(qname, dns.TypeNS), Ns: ns}}, extra: extra}
	}
	return answer{}
}

// cutLast splits the last label off: "a.b.c" is "a.b" and "c".
func cutLast(name string) (rest, last string) {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return "", name
}

// underSvc answers for names under svc: [[_port.]_proto.|host.]service.namespace
func (z *zone) underSvc(qname, rest string, qtype uint16) answer {
	if rest == "" {
		return answer{}
	}
	rest, namespace := cutLast(rest)
	if rest == "" {
		if z.index.hasNamespace(namespace) {
			return answer{}
		}
		return answer{rcode: dns.RcodeNameError}
	}
	rest, name := cutLast(rest)
	e := z.index.service(name, namespace)
	switch {
	case e == nil:
		return answer{rcode: dns.RcodeNameError}
	case rest == "" && e.external != "":
		return z.external(qname, e, qtype)
	case rest == "":
		if qtype == dns.TypeSRV {
			return z.srv(qname, e, func(port) bool { return true })
		}
		return answer{rrs: z.addresses(qname, e.addrs, qtype)}
	case strings.HasPrefix(rest, "_"):
		return z.underService(qname, rest, e, qtype)
	}
	addrs, ok := e.hosts[rest]
	if !ok {
		return answer{rcode: dns.RcodeNameError}
	}
	if qtype == dns.TypeSRV {
		return z.srv(qname, e, func(p port) bool { return p.host == rest })
	}
	return answer{rrs: z.addresses(qname, addrs, qtype)}
}

// underService answers for _proto and _port._proto under a service.
func (z *zone) underService(qname, rest string, e *entry, qtype uint16) answer {
	service, proto := cutLast(rest)
	found := false
	for _, p := range e.ports {
		found = found || (p.proto == proto && (service == "" || p.service == service))
	}
	switch {
	case !found:
		return answer{rcode: dns.RcodeNameError}
	case qtype != dns.TypeSRV || service == "":
		return answer{}
	}
	return z.srv(qname, e, func(p port) bool { return p.proto == proto && p.service == service })
}

func (z *zone) srv(qname string, e *entry, match func(port) bool) answer {
	var a answer
	base := e.name + "." + e.namespace + ".svc." + z.domain
	seen := map[string]bool{}
	for _, p := range e.ports {
		if !match(p) {
			continue
		}
		target, addrs := base, e.addrs
		if p.host != "" {
			target, addrs = p.host+"."+base, e.hosts[p.host]
		}
		a.rrs = append(a.rrs, &dns.SRV{Hdr: z.header(qname, dns.TypeSRV), Weight: 1, Port: p.number, Target: target})
		if !seen[target] {
			seen[target] = true
			a.extra = append(a.extra, z.addresses(target, addrs, dns.TypeA)...)
			a.extra = append(a.extra, z.addresses(target, addrs, dns.TypeAAAA)...)
		}
	}
	// The specification gives each target an equal share.
	for _, rr := range a.rrs {
		if s, ok := rr.(*dns.SRV); ok {
			s.Weight = uint16(max(1, 100/len(a.rrs)))
		}
	}
	return a
}

func (z *zone) external(qname string, e *entry, qtype uint16) answer {
	a := answer{rrs: []dns.RR{&dns.CNAME{Hdr: z.header(qname, dns.TypeCNAME), Target: e.external}}}
	if qtype != dns.TypeCNAME {
		a.target = e.external
	}
	return a
}

// underPod answers for a pod's address written as a label, as
// 10-0-0-1.namespace.pod; whether the pod exists is not looked at.
func (z *zone) underPod(qname, rest string, qtype uint16) answer {
	if rest == "" {
		return answer{}
	}
	rest, namespace := cutLast(rest)
	if rest == "" {
		if z.index.hasNamespace(namespace) {
			return answer{}
		}
		return answer{rcode: dns.RcodeNameError}
	}
	a, ok := undashed(rest)
	if !ok {
		return answer{rcode: dns.RcodeNameError}
	}
	return answer{rrs: z.addresses(qname, []netip.Addr{a}, qtype)}
}

func (z *zone) addresses(name string, addrs []netip.Addr, qtype uint16) []dns.RR {
	var rrs []dns.RR
	for _, a := range addrs {
		switch {
		case a.Is4() && qtype == dns.TypeA:
			rrs = append(rrs, &dns.A{Hdr: z.header(name, dns.TypeA), A: a.AsSlice()})
		case a.Is6() && qtype == dns.TypeAAAA:
			rrs = append(rrs, &dns.AAAA{Hdr: z.header(name, dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	}
	return rrs
}

// reverse answers for a name under in-addr.arpa or ip6.arpa, if the address
// is the cluster's.
func (z *zone) reverse(qname, lower string, qtype uint16) (answer, bool) {
	addr, ok := reverseAddr(lower)
	if !ok {
		return answer{}, false
	}
	c, ok := z.index.reverse.get(addr)
	if !ok {
		return answer{}, false
	}
	if qtype != dns.TypePTR {
		return answer{}, true
	}
	var a answer
	for _, name := range c {
		a.rrs = append(a.rrs, &dns.PTR{Hdr: z.header(qname, dns.TypePTR), Ptr: name + z.domain})
	}
	return a, true
}

// reverseAddr is the address that a name under arpa stands for.
func reverseAddr(name string) (netip.Addr, bool) {
	if rel, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		l := strings.Split(rel, ".")
		if len(l) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(l[3] + "." + l[2] + "." + l[1] + "." + l[0])
		return a, err == nil
	}
	rel, ok := strings.CutSuffix(name, ".ip6.arpa.")
	if !ok || len(rel) != 63 {
		return netip.Addr{}, false
	}
	var b strings.Builder
	for i := 62; i >= 0; i -= 2 {
		b.WriteByte(rel[i])
		if n := (62 - i) / 2; n%4 == 3 && i > 0 {
			b.WriteByte(':')
		}
	}
	a, err := netip.ParseAddr(b.String())
	return a, err == nil
}
