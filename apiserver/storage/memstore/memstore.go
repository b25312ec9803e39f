// Package memstore is the store contract on one machine's memory, for the
// tests of those who use a store.
//
// Its invariant: it behaves as the replicated store does with one voter that
// is always reachable; nothing survives the process.
package memstore

import (
	"context"
	"iter"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/google/btree"

	"skein.dev/skein/api/role"
	"skein.dev/skein/api/store"
)

// Store implements [store.Store].
type Store struct {
	mu        sync.Mutex // guards the fields below
	tree      *btree.BTreeG[*store.Entry]
	rev       store.Revision
	events    []*store.Event
	roots     map[store.Revision]*btree.BTreeG[*store.Entry]
	compacted store.Revision
	changed   chan struct{}
	epochs    map[role.Name]uint64
	timers    map[*time.Timer]struct{}
	fault     error
}

// New returns a store at revision 1 without keys.
func New() *Store {
	s := &Store{
		tree:    btree.NewG(32, func(a, b *store.Entry) bool { return a.Key < b.Key }),
		rev:     1,
		roots:   map[store.Revision]*btree.BTreeG[*store.Entry]{},
		changed: make(chan struct{}),
		epochs:  map[role.Name]uint64{},
		timers:  map[*time.Timer]struct{}{},
	}
	s.roots[1] = s.tree.Clone()
	return s
}

// Fail makes every later Propose and Current return err; nil ends that.
func (s *Store) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = err
}

// SetEpoch sets the epoch below which fences of a role are refused.
func (s *Store) SetEpoch(r role.Name, epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epochs[r] = epoch
}

// Compact forgets the states before rev and the events up to rev.
func (s *Store) Compact(rev store.Revision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compacted = max(s.compacted, rev)
	for r := range s.roots {
		if r < rev {
			delete(s.roots, r)
		}
	}
	i := sort.Search(len(s.events), func(i int) bool { return s.events[i].Revision > rev })
	s.events = append([]*store.Event(nil), s.events[i:]...)
}

// Propose implements [store.Store].
func (s *Store) Propose(ctx context.Context, t store.Txn) (store.Result, error) {
	if err := ctx.Err(); err != nil {
		return store.Result{}, err
	}
	for _, op := range t.Ops {
		if len(op.Value) > 1536<<10 {
			return store.Result{}, store.ErrTooLarge
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil {
		return store.Result{}, s.fault
	}
	if t.Fence != nil && t.Fence.Epoch < s.epochs[t.Fence.Role] {
		return store.Result{}, store.ErrFenced
	}
	for _, g := range t.Guards {
		e := s.getLocked(g.Key)
		if (e == nil && g.Mod != 0) || (e != nil && e.Mod != g.Mod) {
			return store.Result{Revision: s.rev, Failed: e}, nil
		}
	}
	return s.applyLocked(t), nil
}

func (s *Store) getLocked(key string) *store.Entry {
	e, _ := s.tree.Get(&store.Entry{Key: key})
	return e
}

func (s *Store) applyLocked(t store.Txn) store.Result {
	next := s.rev + 1
	res := store.Result{Held: true, Entries: make([]*store.Entry, len(t.Ops)), Prev: make([]*store.Entry, len(t.Ops))}
	changed := false
	for i, op := range t.Ops {
		prev := s.getLocked(op.Key)
		res.Prev[i] = prev
		if op.Delete {
			if prev == nil {
				continue
			}
			s.tree.Delete(prev)
			s.events = append(s.events, &store.Event{Revision: next, Key: op.Key, Prev: prev})
			changed = true
			continue
		}
		e := &store.Entry{Key: op.Key, Value: op.Value, Create: next, Mod: next, TTL: op.TTL}
		if prev != nil {
			e.Create = prev.Create
		}
		s.tree.ReplaceOrInsert(e)
		res.Entries[i] = e
		s.events = append(s.events, &store.Event{Revision: next, Key: op.Key, Entry: e, Prev: prev})
		changed = true
		if op.TTL > 0 {
			s.expireLocked(e)
		}
	}
	if changed {
		s.rev = next
		s.roots[next] = s.tree.Clone()
		close(s.changed)
		s.changed = make(chan struct{})
	}
	res.Revision = s.rev
	return res
}

func (s *Store) expireLocked(e *store.Entry) {
	var t *time.Timer
	t = time.AfterFunc(time.Duration(e.TTL)*time.Second, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.timers, t)
		if cur := s.getLocked(e.Key); cur == e {
			s.applyLocked(store.Txn{Ops: []store.Op{{Key: e.Key, Delete: true}}})
		}
	})
	s.timers[t] = struct{}{}
}

// Local implements [store.Store].
func (s *Store) Local() store.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return view{rev: s.rev, tree: s.roots[s.rev]}
}

// Current implements [store.Store].
func (s *Store) Current(ctx context.Context) (store.View, error) {
	s.mu.Lock()
	fault := s.fault
	s.mu.Unlock()
	if fault != nil {
		return nil, fault
	}
	return s.Local(), ctx.Err()
}

// At implements [store.Store].
func (s *Store) At(rev store.Revision) (store.View, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rev > s.rev {
		return nil, store.ErrFuture
	}
	root, ok := s.roots[rev]
	if !ok || rev < s.compacted {
		return nil, store.ErrCompacted
	}
	return view{rev: rev, tree: root}, nil
}

// Wait implements [store.Store].
func (s *Store) Wait(ctx context.Context, rev store.Revision) error {
	for {
		s.mu.Lock()
		done, changed := s.rev >= rev, s.changed
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Verified implements [store.Store].
func (s *Store) Verified() bool { return true }

// Watch implements [store.Store].
func (s *Store) Watch(prefix string, exact bool, rev store.Revision) (store.Watch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rev < s.compacted {
		return nil, store.ErrCompacted
	}
	return &watch{s: s, prefix: prefix, exact: exact, seen: rev, closed: make(chan struct{})}, nil
}

type watch struct {
	s      *Store
	prefix string
	exact  bool
	seen   store.Revision
	once   sync.Once
	closed chan struct{}
}

func (w *watch) Close() { w.once.Do(func() { close(w.closed) }) }

func (w *watch) Next(ctx context.Context, wait bool) ([]*store.Event, store.Revision, error) {
	for {
		select {
		case <-w.closed:
			return nil, w.seen, store.ErrClosed
		case <-ctx.Done():
			return nil, w.seen, ctx.Err()
		default:
		}
		events, changed, err := w.poll()
		if err != nil || len(events) > 0 || !wait {
			return events, w.seen, err
		}
		select {
		case <-changed:
		case <-w.closed:
		case <-ctx.Done():
		}
	}
}

func (w *watch) poll() ([]*store.Event, chan struct{}, error) {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.seen < s.compacted {
		return nil, nil, store.ErrCompacted
	}
	var out []*store.Event
	i := sort.Search(len(s.events), func(i int) bool { return s.events[i].Revision > w.seen })
	for _, e := range s.events[i:] {
		if e.Key == w.prefix || !w.exact && strings.HasPrefix(e.Key, w.prefix) {
			out = append(out, e)
		}
	}
	w.seen = max(w.seen, s.rev)
	return out, s.changed, nil
}

type view struct {
	rev  store.Revision
	tree *btree.BTreeG[*store.Entry]
}

func (v view) Revision() store.Revision { return v.rev }

func (v view) Get(key string) *store.Entry {
	e, _ := v.tree.Get(&store.Entry{Key: key})
	return e
}

func (v view) Ascend(prefix, from string) iter.Seq[*store.Entry] {
	return func(yield func(*store.Entry) bool) {
		v.tree.AscendGreaterOrEqual(&store.Entry{Key: max(prefix, from)}, func(e *store.Entry) bool {
			return strings.HasPrefix(e.Key, prefix) && yield(e)
		})
	}
}

func (v view) Count(prefix, from string) int {
	n := 0
	for range v.Ascend(prefix, from) {
		n++
	}
	return n
}
