// Package replica makes informers that read this peer's own replica of the
// store. One reader follows the changes and hands each to the informers of its
// kind, so that an informer that waits costs neither a buffer nor a connection.
//
// Its invariant: the handlers of an informer are told every change that the
// store's events tell, each once and in order, and what an informer shows is
// never older than what its handlers have been told.
package replica

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"

	"skein.dev/skein/api/store"
)

// Store is what a hub reads: the part of [store.Store] that never waits.
type Store interface {
	Local() store.View
	Watch(prefix string, exact bool, rev store.Revision) (store.Watch, error)
}

// Kind says where the objects of an informer are. The objects are shared with
// other readers and nobody may change them.
type Kind struct {
	// Name is for messages.
	Name string
	// Prefix is what the keys of the kind begin with, to the last slash; the
	// rest of a key is NAMESPACE/NAME or NAME.
	Prefix string
	// Each yields the objects of a view that can be read.
	Each func(view store.View) iter.Seq[runtime.Object]
	// Read is the object in an entry, made anew by each call. An informer of a
	// kind that has it holds no objects but reads them when they are asked
	// for, and needs no Each.
	Read func(*store.Entry) (runtime.Object, error)
	// Told is the object after a change, or when it is gone as it was then.
	Told func(*store.Event) (runtime.Object, error)
}

// Hub is the one reader. Make it with [NewHub].
type Hub struct {
	store Store
	root  string
	log   *slog.Logger

	through atomic.Int64 // all changes up to it have been handed on

	mu      sync.Mutex // guards the fields below and orders what is handed on
	running map[string][]*Informer
	count   int
	open    bool // the reader is at through
	stop    context.CancelFunc
	done    chan struct{} // closed by the reader; also tells one reader from the next
}

// NewHub makes a hub of the keys that begin with root; nil discards the log.
// It reads nothing until an informer runs.
func NewHub(s Store, root string, log *slog.Logger) *Hub {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Hub{store: s, root: root, log: log, running: map[string][]*Informer{}}
}

// join has the hub inform in, and the reader run while anybody is informed.
func (h *Hub) join(ctx context.Context, in *Informer) {
	if in.thin == nil {
		for range in.kind.Each(h.store.Local()) { // decoding is remembered with the entries, and the lock below is everybody's
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running[in.kind.Prefix] = append(h.running[in.kind.Prefix], in)
	if h.count++; h.count == 1 {
		// It outlives the first informer as long as there are others.
		rctx, stop := context.WithCancel(context.WithoutCancel(ctx))
		h.stop, h.done = stop, make(chan struct{})
		go h.run(rctx, h.done)
	} else if h.open {
		in.show(ctx, h.store.Local())
	}
}

// part undoes join.
func (h *Hub) part(in *Informer) {
	h.mu.Lock()
	var left []*Informer
	for _, other := range h.running[in.kind.Prefix] {
		if other != in {
			left = append(left, other)
		}
	}
	if h.running[in.kind.Prefix] = left; left == nil {
		delete(h.running, in.kind.Prefix)
	}
	h.count--
	stop, done := h.stop, h.done
	last := h.count == 0
	h.mu.Unlock()
	if last {
		stop()
		<-done
	}
}

// again is the pause after a failure that is not known to pass at once.
const again = time.Second

func (h *Hub) run(ctx context.Context, done chan struct{}) {
	defer close(done)
	for {
		err := h.follow(ctx, done)
		if ctx.Err() != nil || errors.Is(err, store.ErrClosed) {
			return
		}
		if errors.Is(err, store.ErrCompacted) {
			continue // the replica was replaced, or outran us: start from what it is now
		}
		h.log.WarnContext(ctx, "informers do not follow the store", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(again):
		}
	}
}

// follow shows all informers the present state and then every change, until
// that cannot go on.
func (h *Hub) follow(ctx context.Context, me chan struct{}) error {
	cursor, err := h.begin(ctx, me)
	if err != nil {
		return err
	}
	defer func() {
		cursor.Close()
		h.mu.Lock()
		defer h.mu.Unlock()
		h.open = h.open && h.done != me
	}()
	for {
		events, through, err := cursor.Next(ctx, true)
		if err != nil {
			return err
		}
		h.tell(ctx, me, events, through)
	}
}

func (h *Hub) begin(ctx context.Context, me chan struct{}) (store.Watch, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.done != me {
		return nil, context.Canceled
	}
	view := h.store.Local()
	cursor, err := h.store.Watch(h.root, false, view.Revision())
	if err != nil {
		return nil, err
	}
	for _, all := range h.running {
		for _, in := range all {
			in.show(ctx, view)
		}
	}
	h.through.Store(int64(view.Revision()))
	h.open = true
	return cursor, nil
}

func (h *Hub) tell(ctx context.Context, me chan struct{}, events []*store.Event, through store.Revision) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.done != me { // the last informer has gone and others have come, with a reader of their own
		return
	}
	for _, e := range events {
		for at := len(h.root); at < len(e.Key); at++ {
			next := strings.IndexByte(e.Key[at:], '/')
			if next < 0 {
				break
			}
			at += next
			for _, in := range h.running[e.Key[:at+1]] {
				in.change(ctx, e)
			}
		}
	}
	h.through.Store(int64(through))
}
