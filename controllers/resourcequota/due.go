package resourcequota

import (
	"sync"
	"time"

	"skein.dev/skein/controllers/run"
)

// count is what a reconcile has to do with its quota.
type count int

const (
	later count = iota // it was counted a moment ago
	raise              // something has come: the figures may only grow
	whole              // something may have gone, or nobody has counted yet
)

// between is the shortest pause between two counts that may only raise: a
// thousand pods that come at once are not counted a thousand times.
const between = time.Second

// due remembers what each quota waits for. A key is missing until it has been
// counted whole, and again when something of its namespace has gone.
type due struct {
	mu   sync.Mutex // guards the field below
	keys map[run.Key]counted
}

type counted struct{ whole, last time.Time }

// lowered tells that the quotas' figures may have become too high.
func (d *due) lowered(keys []run.Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, k := range keys {
		delete(d.keys, k)
	}
}

// begin is asked before anything is read for a count, so that what goes while
// it lasts asks for the next one. every is the longest time between two whole
// counts. The duration tells when to come again, if it is too soon.
func (d *due) begin(key run.Key, now time.Time, every time.Duration) (count, time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, ok := d.keys[key]
	switch {
	case !ok || now.Sub(c.whole) >= every:
		d.keys[key] = counted{whole: now, last: now}
		return whole, 0
	case now.Sub(c.last) < between:
		return later, between - now.Sub(c.last)
	}
	c.last = now
	d.keys[key] = c
	return raise, 0
}

// reset forgets everything: another peer may have led meanwhile.
func (d *due) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keys = map[run.Key]counted{}
}
