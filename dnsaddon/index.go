package dnsaddon

import (
	"hash/maphash"
	"maps"
	"net/netip"
	"sync/atomic"
)

// entry is all that the DNS says of one service. It is immutable.
type entry struct {
	namespace, name string // lower case

	addrs    []netip.Addr // what the service's own name leads to
	external string       // ExternalName's target, fully qualified; else empty
	headless bool
	hosts    map[string][]netip.Addr // names under a headless service
	ports    []port
}

// port is one SRV record.
type port struct {
	service, proto string // "_http", "_tcp"; service is empty for an unnamed port
	number         uint16
	host           string // label under the service; empty: the service itself
}

const shardCount = 256

// table is a map whose readers take no lock and see each key's value whole.
// One goroutine writes. A write copies one of the shards, so its cost is a
// small part of the table's size.
type table[K comparable, V any] struct {
	seed   maphash.Seed
	shards [shardCount]atomic.Pointer[map[K]V]
}

func newTable[K comparable, V any]() *table[K, V] {
	return &table[K, V]{seed: maphash.MakeSeed()}
}

func (t *table[K, V]) shard(k K) *atomic.Pointer[map[K]V] {
	return &t.shards[maphash.Comparable(t.seed, k)%shardCount]
}

func (t *table[K, V]) get(k K) (V, bool) {
	m := t.shard(k).Load()
	if m == nil {
		var zero V
		return zero, false
	}
	v, ok := (*m)[k]
	return v, ok
}

// update calls change with a copy of the shard of k and then shows the copy.
func (t *table[K, V]) update(k K, change func(map[K]V)) {
	s := t.shard(k)
	next := map[K]V{}
	if old := s.Load(); old != nil {
		next = maps.Clone(*old)
	}
	change(next)
	s.Store(&next)
}

func (t *table[K, V]) set(k K, v V) { t.update(k, func(m map[K]V) { m[k] = v }) }

func (t *table[K, V]) remove(k K) { t.update(k, func(m map[K]V) { delete(m, k) }) }

// index is what the cluster's names lead to. Any goroutine reads it without
// locks; one writes it.
type index struct {
	services   *table[string, *entry]      // "name.namespace"
	namespaces *table[string, int]         // how many services a namespace has
	reverse    *table[netip.Addr, claims]  // addresses back to names
	pods       *table[netip.Addr, podSpot] // pods' addresses to their namespaces
}

// claims are the names that an address stands for, by the key of the service
// that says so: an address can pass to a new owner before the old one is gone.
type claims map[string]string

// podSpot says whose an address is.
type podSpot struct {
	pod       string // "namespace/name"
	namespace string
}

func newIndex() *index {
	return &index{
		services:   newTable[string, *entry](),
		namespaces: newTable[string, int](),
		reverse:    newTable[netip.Addr, claims](),
		pods:       newTable[netip.Addr, podSpot](),
	}
}

func (x *index) service(name, namespace string) *entry {
	e, _ := x.services.get(name + "." + namespace)
	return e
}

func (x *index) hasNamespace(name string) bool {
	n, _ := x.namespaces.get(name)
	return n > 0
}

// put makes e what the key "name.namespace" leads to; nil removes it.
func (x *index) put(key string, namespace string, e *entry) {
	old, existed := x.services.get(key)
	before, after := names(old), names(e)
	for a := range before {
		if _, still := after[a]; !still {
			x.claim(a, key, "")
		}
	}
	for a, name := range after {
		if before[a] != name {
			x.claim(a, key, name)
		}
	}
	count, _ := x.namespaces.get(namespace)
	switch {
	case e != nil:
		x.services.set(key, e)
		if !existed {
			x.namespaces.set(namespace, count+1)
		}
	case existed:
		x.services.remove(key)
		if count <= 1 {
			x.namespaces.remove(namespace)
		} else {
			x.namespaces.set(namespace, count-1)
		}
	}
}

// names are the reverse names an entry gives: of a service's own addresses,
// or of the hosts under a headless one. They lack the zone.
func names(e *entry) map[netip.Addr]string {
	out := map[netip.Addr]string{}
	if e == nil {
		return out
	}
	base := e.name + "." + e.namespace + ".svc."
	if !e.headless {
		for _, a := range e.addrs {
			out[a] = base
		}
	}
	for host, addrs := range e.hosts {
		for _, a := range addrs {
			// Of several names the first in order, so that it is stable.
			if have, ok := out[a]; !ok || host+"."+base < have {
				out[a] = host + "." + base
			}
		}
	}
	return out
}

// claim notes that key says name of a, or with an empty name says nothing.
func (x *index) claim(a netip.Addr, key, name string) {
	x.reverse.update(a, func(m map[netip.Addr]claims) {
		c := maps.Clone(m[a])
		if c == nil {
			c = claims{}
		}
		if name == "" {
			delete(c, key)
		} else {
			c[key] = name
		}
		if len(c) == 0 {
			delete(m, a)
		} else {
			m[a] = c
		}
	})
}

// setPod and removePod keep the namespaces of pods' addresses. A removal
// counts only while the address is still that pod's.
func (x *index) setPod(a netip.Addr, pod, namespace string) {
	if have, ok := x.pods.get(a); ok && have.pod == pod {
		return
	}
	x.pods.set(a, podSpot{pod: pod, namespace: namespace})
}

func (x *index) removePod(a netip.Addr, pod string) {
	if have, ok := x.pods.get(a); ok && have.pod == pod {
		x.pods.remove(a)
	}
}
