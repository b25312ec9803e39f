package raftstore

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"skein.dev/skein/api/store"
)

// expiry deletes what has lived for its TTL while this peer leads. Time is
// the leader's monotonic clock; a new leader begins all TTLs anew, so that an
// entry may live longer but never shorter than was asked.
type expiry struct {
	wake chan struct{}

	mu  sync.Mutex // guards the fields below
	on  bool
	due deadlines
}

type deadline struct {
	at  time.Time
	key string
	mod store.Revision
}

// deadlines implements [heap.Interface].
type deadlines []deadline

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].at.Before(d[j].at) }
func (d deadlines) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }

// Push implements [heap.Interface].
func (d *deadlines) Push(x any) { *d = append(*d, x.(deadline)) }

// Pop implements [heap.Interface].
func (d *deadlines) Pop() any {
	last := len(*d) - 1
	x := (*d)[last]
	*d = (*d)[:last]
	return x
}

func newExpiry() *expiry { return &expiry{wake: make(chan struct{}, 1)} }

// add notes the entries of events that will expire.
func (e *expiry) add(events []*store.Event) {
	for _, ev := range events {
		if ev.Entry != nil && ev.Entry.TTL > 0 {
			e.schedule(ev.Entry, time.Now().Add(time.Duration(ev.Entry.TTL)*time.Second))
		}
	}
}

func (e *expiry) schedule(entry *store.Entry, at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.on {
		return
	}
	heap.Push(&e.due, deadline{at: at, key: entry.Key, mod: entry.Mod})
	if e.due[0].mod == entry.Mod {
		select {
		case e.wake <- struct{}{}:
		default:
		}
	}
}

func (e *expiry) set(on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.on, e.due = on, nil
}

// next returns what is due, at most some, and how long until more is.
func (e *expiry) next() (due []deadline, pause time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	for len(e.due) > 0 && len(due) < expiryBatch && !e.due[0].at.After(now) {
		due = append(due, heap.Pop(&e.due).(deadline))
	}
	switch {
	case len(due) > 0:
		return due, 0
	case len(e.due) > 0:
		return nil, e.due[0].at.Sub(now)
	}
	return nil, time.Hour
}

const expiryBatch = 256

// expire runs for one term of leadership.
func (s *Store) expire(ctx context.Context) {
	s.expiry.set(true)
	defer s.expiry.set(false)
	for e := range s.machine.State().Ascend("", "") {
		if e.TTL > 0 {
			s.expiry.schedule(e, time.Now().Add(time.Duration(e.TTL)*time.Second))
		}
	}
	for ctx.Err() == nil {
		due, pause := s.expiry.next()
		if len(due) > 0 {
			s.deleteDue(ctx, due)
			continue
		}
		select {
		case <-ctx.Done():
		case <-s.expiry.wake:
		case <-time.After(pause):
		}
	}
}

// deleteDue deletes each key if it still is the entry whose time has come. A
// delete that fails is tried again in a second.
func (s *Store) deleteDue(ctx context.Context, due []deadline) {
	var all sync.WaitGroup
	for _, d := range due {
		if e := s.machine.State().Get(d.key); e == nil || e.Mod != d.mod {
			continue
		}
		all.Go(func() {
			_, err := s.Propose(ctx, store.Txn{
				Guards: []store.Guard{{Key: d.key, Mod: d.mod}},
				Ops:    []store.Op{{Key: d.key, Delete: true}},
			})
			if err != nil {
				s.expiry.schedule(&store.Entry{Key: d.key, Mod: d.mod}, time.Now().Add(time.Second))
			}
		})
	}
	all.Wait()
}
