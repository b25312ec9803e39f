package dnsaddon

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	cacheShards = 64
	positiveMax = time.Hour
	negativeMax = 30 * time.Second
	staleMax    = time.Hour // how long after its end an answer may still serve
)

// memory remembers upstream answers, at most a given number of them.
type memory struct {
	seed   maphash.Seed
	max    int // in a shard
	shards [cacheShards]memoryShard
}

type memoryShard struct {
	mu      sync.Mutex // guards the fields below
	answers map[question]remembered
}

type remembered struct {
	msg    *dns.Msg
	stored time.Time
	ends   time.Time
}

func newMemory(entries int) *memory {
	c := &memory{seed: maphash.MakeSeed(), max: max(1, entries/cacheShards)}
	for i := range c.shards {
		c.shards[i].answers = map[question]remembered{}
	}
	return c
}

func (c *memory) shard(q question) *memoryShard {
	return &c.shards[maphash.Comparable(c.seed, q)%cacheShards]
}

// get returns a copy of the remembered answer with its records' times counted
// down, or nil. With stale it also returns one that has ended, not long ago.
func (c *memory) get(q question, now time.Time, stale bool) *dns.Msg {
	s := c.shard(q)
	s.mu.Lock()
	r, ok := s.answers[q]
	s.mu.Unlock()
	switch {
	case !ok:
		return nil
	case now.Before(r.ends):
		age := uint32(now.Sub(r.stored) / time.Second)
		return aged(r.msg, func(ttl uint32) uint32 { return ttl - min(age, ttl) })
	case stale && now.Before(r.ends.Add(staleMax)):
		return aged(r.msg, func(uint32) uint32 { return staleTTL })
	}
	return nil
}

func aged(m *dns.Msg, ttl func(uint32) uint32) *dns.Msg {
	out := *m
	change := func(in []dns.RR) []dns.RR {
		rrs := make([]dns.RR, len(in))
		for i, rr := range in {
			rrs[i] = dns.Copy(rr)
			rrs[i].Header().Ttl = ttl(rr.Header().Ttl)
		}
		return rrs
	}
	out.Answer, out.Ns, out.Extra = change(m.Answer), change(m.Ns), change(m.Extra)
	return &out
}

// put remembers an answer as long as its records live. What is no answer (a
// server's failure) is not remembered. A full shard gives up some other one.
func (c *memory) put(q question, m *dns.Msg, now time.Time) {
	life := lifetime(m)
	if life <= 0 {
		return
	}
	s := c.shard(q)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.answers[q]; !known && len(s.answers) >= c.max {
		for old := range s.answers { // the map's order is as good as random
			delete(s.answers, old)
			break
		}
	}
	s.answers[q] = remembered{msg: m, stored: now, ends: now.Add(life)}
}

// lifetime is how long an answer may be remembered: as its shortest-lived
// record, and a negative one as its SOA says (RFC 2308).
func lifetime(m *dns.Msg) time.Duration {
	if m.Truncated || (m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError) {
		return 0
	}
	if m.Rcode == dns.RcodeSuccess && len(m.Answer) > 0 {
		ttl := ^uint32(0)
		for _, rr := range m.Answer {
			ttl = min(ttl, rr.Header().Ttl)
		}
		return min(time.Duration(ttl)*time.Second, positiveMax)
	}
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return min(time.Duration(min(soa.Minttl, soa.Hdr.Ttl))*time.Second, negativeMax)
		}
	}
	return 0 // a negative answer without SOA must not be remembered
}
