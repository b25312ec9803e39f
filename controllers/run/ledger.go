package run

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// Ledger remembers a controller's own writes until its informer shows them,
// so that a reconcile never counts a pod as missing that it has just made.
// Safe for concurrent use.
type Ledger struct {
	inf cache.SharedIndexInformer

	mu      sync.Mutex // guards the fields below
	pending map[Key][]write
	sweepAt int // how many keys are too many, unless their writes are young
}

type write struct {
	name    Key
	uid     string
	rev     uint64 // of the created object; 0: unknown
	deleted bool
	updated bool // seen only at rev or later
	expires time.Time
}

// writeTimeout bounds the wait for an event that will never come, such as
// that of an object created and deleted while the watch was being renewed.
const writeTimeout = 30 * time.Second

// NewLedger watches for own writes of the informer's kind.
func NewLedger(inf cache.SharedIndexInformer) *Ledger {
	return &Ledger{inf: inf, pending: map[Key][]write{}}
}

// Created notes that the reconcile of key made obj.
func (l *Ledger) Created(key Key, obj metav1.Object) {
	l.add(key, write{name: Key{Namespace: obj.GetNamespace(), Name: obj.GetName()}, uid: string(obj.GetUID()), rev: revisionOf(obj)})
}

// Deleted notes that the reconcile of key asked for obj's deletion.
func (l *Ledger) Deleted(key Key, obj metav1.Object) {
	l.add(key, write{name: Key{Namespace: obj.GetNamespace(), Name: obj.GetName()}, uid: string(obj.GetUID()), deleted: true})
}

// Wrote notes that the reconcile of key changed obj, which is as the API
// returned it.
func (l *Ledger) Wrote(key Key, obj metav1.Object) {
	l.add(key, write{
		name: Key{Namespace: obj.GetNamespace(), Name: obj.GetName()}, uid: string(obj.GetUID()), rev: revisionOf(obj), updated: true,
	})
}

// revisionOf is an object's revision, 0 if unknown.
func revisionOf(obj metav1.Object) uint64 {
	rev, err := strconv.ParseUint(obj.GetResourceVersion(), 10, 64)
	if err != nil {
		return 0
	}
	return rev
}

func (l *Ledger) add(key Key, w write) {
	w.expires = time.Now().Add(writeTimeout)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending[key] = append(l.pending[key], w)
	if len(l.pending) > max(l.sweepAt, minSweep) {
		l.sweepLocked()
	}
}

const minSweep = 64

// sweepLocked forgets those whose writes are not waited for any more: nobody asks
// about an owner that was deleted right after its last write.
func (l *Ledger) sweepLocked() {
	now := time.Now()
	for key, all := range l.pending {
		if !slices.ContainsFunc(all, func(w write) bool { return now.Before(w.expires) }) {
			delete(l.pending, key)
		}
	}
	l.sweepAt = 2 * len(l.pending)
}

// Settled reports whether the informer shows all of key's own writes. A
// controller that finds it false returns [Unsettled] and does nothing.
func (l *Ledger) Settled(key Key) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := l.pending[key][:0]
	for _, w := range l.pending[key] {
		if !l.seen(w) {
			left = append(left, w)
		}
	}
	if len(left) == 0 {
		delete(l.pending, key)
		return true
	}
	l.pending[key] = left
	return false
}

// Unsettled is when to look again at a key whose writes are not yet seen; the
// informer's event usually comes first.
const Unsettled = 50 * time.Millisecond

// Reset forgets all writes.
func (l *Ledger) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = map[Key][]write{}
}

func (l *Ledger) seen(w write) bool {
	if time.Now().After(w.expires) {
		return true
	}
	name := w.name.Name
	if w.name.Namespace != "" {
		name = w.name.String()
	}
	obj, ok, err := l.inf.GetIndexer().GetByKey(name)
	if err != nil {
		return false
	}
	if w.updated {
		if !ok {
			return true
		}
		m, err := meta.Accessor(obj)
		return err != nil || string(m.GetUID()) != w.uid || revisionOf(m) >= w.rev
	}
	if !w.deleted {
		return ok || (w.rev > 0 && StoreRevision(l.inf) >= w.rev)
	}
	if !ok {
		return true
	}
	m, err := meta.Accessor(obj)
	return err != nil || string(m.GetUID()) != w.uid || m.GetDeletionTimestamp() != nil
}
