package fsm

import (
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"skein.dev/skein/api/store"
)

// Limits bound what a machine keeps of the past. They are a peer's own
// business: what is kept has no influence on what entries do.
type Limits struct {
	Age    time.Duration // by the mesh's clock; 0: five minutes
	Bytes  int           // of events with their values; 0: 64 MiB
	Events int           // 0: 200,000
}

func (l Limits) withDefaults() Limits {
	if l.Age == 0 {
		l.Age = 5 * time.Minute
	}
	if l.Bytes == 0 {
		l.Bytes = 64 << 20
	}
	if l.Events == 0 {
		l.Events = 200_000
	}
	return l
}

// record is one revision: the data as it stood, and what changed.
type record struct {
	rev    store.Revision
	clock  int64
	hash   uint64
	root   *node
	events []*store.Event
	size   int
}

// history is the recent revisions, oldest first, without a gap. Writers are
// one, readers many.
type history struct {
	limits Limits

	mu      sync.RWMutex // guards the fields below
	records []record
	since   store.Revision // events after this revision are all here
	bytes   int
	events  int
}

const recordSize = 640 // what a revision costs beside its events: its path of nodes

func (h *history) reset(base record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.records = []record{base}
	h.since = base.rev
	h.bytes, h.events = 0, 0
}

func (h *history) push(r record) {
	r.size = recordSize
	for _, e := range r.events {
		r.size += 128 + len(e.Key)
		if e.Entry != nil {
			r.size += len(e.Entry.Value)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.records = append(h.records, r)
	h.bytes += r.size
	h.events += len(r.events)
	drop := 0
	for drop < len(h.records)-1 && h.overLocked(h.records[drop], r.clock) {
		h.bytes -= h.records[drop].size
		h.events -= len(h.records[drop].events)
		drop++
	}
	h.dropLocked(drop)
}

func (h *history) overLocked(oldest record, now int64) bool {
	return h.bytes > h.limits.Bytes || h.events > h.limits.Events || now-oldest.clock > int64(h.limits.Age)
}

// dropLocked forgets the oldest n records. Go moves the rest to a new array
// when append next grows it, so the zeroing is what frees them now.
func (h *history) dropLocked(n int) {
	if n == 0 {
		return
	}
	h.since = max(h.since, h.records[n].rev-1)
	clear(h.records[:n])
	h.records = h.records[n:]
}

// compact forgets everything before the newest record.
func (h *history) compact() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropLocked(len(h.records) - 1)
	last := h.records[0]
	h.records = append(make([]record, 0, 16), last)
	h.bytes, h.events = last.size, len(last.events)
}

func (h *history) findLocked(rev store.Revision) (record, error) {
	first, last := h.records[0].rev, h.records[len(h.records)-1].rev
	if rev < first {
		return record{}, fmt.Errorf("revision %d, oldest %d: %w", rev, first, store.ErrCompacted)
	}
	if rev > last {
		return record{}, fmt.Errorf("revision %d, newest %d: %w", rev, last, store.ErrFuture)
	}
	i := sort.Search(len(h.records), func(i int) bool { return h.records[i].rev >= rev })
	return h.records[i], nil
}

// At returns the data at exactly rev: [store.ErrCompacted] or [store.ErrFuture].
func (m *Machine) At(rev store.Revision) (View, error) {
	m.past.mu.RLock()
	defer m.past.mu.RUnlock()
	r, err := m.past.findLocked(rev)
	return View{rev: rev, root: r.root}, err
}

// HashAt returns the hash at rev, and false if rev is not kept or not reached.
func (m *Machine) HashAt(rev store.Revision) (uint64, bool) {
	m.past.mu.RLock()
	defer m.past.mu.RUnlock()
	r, err := m.past.findLocked(rev)
	return r.hash, err == nil
}

// Oldest is the least revision that At knows.
func (m *Machine) Oldest() store.Revision {
	m.past.mu.RLock()
	defer m.past.mu.RUnlock()
	return m.past.records[0].rev
}

// Selector says which keys a reader of events wants.
type Selector struct {
	Prefix string
	Exact  bool // the very key Prefix
}

// Match reports whether key is selected.
func (s Selector) Match(key string) bool {
	if s.Exact {
		return key == s.Prefix
	}
	return strings.HasPrefix(key, s.Prefix)
}

// How much Events looks at or returns in one call.
const (
	scanRecords = 1024
	scanEvents  = 512
)

// Events returns the selected events of whole revisions after rev, and
// through which revision it looked; it may stop before the newest, and looks
// again when called with through. [store.ErrCompacted] if events after rev
// are no longer kept.
func (m *Machine) Events(s Selector, rev store.Revision) (events []*store.Event, through store.Revision, err error) {
	newest := m.State().rev // nothing is told before the state shows it
	h := &m.past
	h.mu.RLock()
	defer h.mu.RUnlock()
	if rev < h.since {
		return nil, rev, fmt.Errorf("events after %d, kept after %d: %w", rev, h.since, store.ErrCompacted)
	}
	through = rev
	i := sort.Search(len(h.records), func(i int) bool { return h.records[i].rev > rev })
	for n := 0; i < len(h.records) && n < scanRecords && len(events) < scanEvents; i, n = i+1, n+1 {
		r := &h.records[i]
		if r.rev > newest {
			break
		}
		for _, e := range r.events {
			if s.Match(e.Key) {
				events = append(events, e)
			}
		}
		through = r.rev
	}
	return events, through, nil
}
