package replica

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/store"
)

// Informer implements cache.SharedIndexInformer. It never resyncs: what a
// replica tells does not get lost.
type Informer struct {
	hub      *Hub
	kind     Kind
	index    indexer
	thin     *thin // nil: the index holds the objects
	detector cache.MutationDetector
	synced   done

	mu        sync.Mutex // guards the fields below and orders what handlers are told
	handlers  []*handler
	transform cache.TransformFunc
	started   bool
	stopped   bool
	seen      store.Revision // shown; what was before is passed over
}

var _ cache.SharedIndexInformer = (*Informer)(nil)

// Informer makes an informer of k, with an index by namespace.
func (h *Hub) Informer(k Kind) *Informer {
	in := &Informer{
		hub: h, kind: k, detector: cache.NewCacheMutationDetector(k.Name),
		synced: done{name: k.Name, closed: make(chan struct{})},
	}
	in.index.in = in
	if k.Read != nil {
		in.thin = newThin(k.Name, in.read)
		in.index.Indexer = in.thin
		return in
	}
	in.index.Indexer = cache.NewIndexer(cache.DeletionHandlingMetaNamespaceKeyFunc,
		cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	return in
}

// indexer knows that what the hub has passed by is shown, too.
type indexer struct {
	cache.Indexer

	in *Informer
}

// LastStoreSyncResourceVersion implements cache.Store.
func (i indexer) LastStoreSyncResourceVersion() string { return i.in.LastSyncResourceVersion() }

// errStopped and errStarted are what comes too late.
var (
	errStopped = errors.New("the informer has stopped")
	errStarted = errors.New("the informer has started")

	errNoIndex    = errors.New("there is none")
	errIndexTwice = errors.New("there is one already")
	errReadOnly   = errors.New("an informer's index is changed by the replica alone")
)

// read is the object in an entry, as readers see it. The transform does not
// change once there are entries to be read.
func (in *Informer) read(e *store.Entry) (any, error) {
	obj, err := in.kind.Read(e)
	if err != nil || in.transform == nil {
		return obj, err
	}
	return in.transform(obj)
}

// AddEventHandler implements cache.SharedInformer.
func (in *Informer) AddEventHandler(to cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return in.AddEventHandlerWithOptions(to, cache.HandlerOptions{})
}

// AddEventHandlerWithResyncPeriod implements cache.SharedInformer.
func (in *Informer) AddEventHandlerWithResyncPeriod(to cache.ResourceEventHandler, _ time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return in.AddEventHandlerWithOptions(to, cache.HandlerOptions{})
}

// AddEventHandlerWithOptions implements cache.SharedInformer.
func (in *Informer) AddEventHandlerWithOptions(to cache.ResourceEventHandler, _ cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.stopped {
		return nil, fmt.Errorf("add handler of %s: %w", in.kind.Name, errStopped)
	}
	h := newHandler(to, in.kind.Name+" + "+fmt.Sprintf("%T", to))
	for _, obj := range in.index.List() {
		h.tell(note{new: obj, initial: true})
	}
	if in.HasSynced() {
		h.tell(note{})
	}
	in.handlers = append(in.handlers, h)
	return h, nil
}

// RemoveEventHandler implements cache.SharedInformer.
func (in *Informer) RemoveEventHandler(r cache.ResourceEventHandlerRegistration) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i, h := range in.handlers {
		if h == r {
			in.handlers = append(in.handlers[:i:i], in.handlers[i+1:]...)
			h.stop()
			break
		}
	}
	return nil
}

// AddIndexers implements cache.SharedIndexInformer.
func (in *Informer) AddIndexers(more cache.Indexers) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.stopped {
		return fmt.Errorf("index %s: %w", in.kind.Name, errStopped)
	}
	return in.index.AddIndexers(more)
}

// SetTransform implements cache.SharedInformer.
func (in *Informer) SetTransform(f cache.TransformFunc) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.started {
		return fmt.Errorf("transform %s: %w", in.kind.Name, errStarted)
	}
	in.transform = f
	return nil
}

// SetWatchErrorHandler implements cache.SharedInformer: there is no watch.
func (*Informer) SetWatchErrorHandler(cache.WatchErrorHandler) error { return nil }

// SetWatchErrorHandlerWithContext implements cache.SharedInformer, likewise.
func (*Informer) SetWatchErrorHandlerWithContext(cache.WatchErrorHandlerWithContext) error {
	return nil
}

// GetStore implements cache.SharedInformer.
func (in *Informer) GetStore() cache.Store { return in.index }

// GetIndexer implements cache.SharedIndexInformer.
func (in *Informer) GetIndexer() cache.Indexer { return in.index }

// GetController implements cache.SharedInformer: it is the informer itself.
func (in *Informer) GetController() cache.Controller { return in }

// HasSynced implements cache.SharedInformer.
func (in *Informer) HasSynced() bool { return cache.IsDone(&in.synced) }

// HasSyncedChecker implements cache.SharedInformer.
func (in *Informer) HasSyncedChecker() cache.DoneChecker { return &in.synced }

// LastSyncResourceVersion implements cache.SharedInformer: empty before the
// first sync, then the revision through which everything is shown.
func (in *Informer) LastSyncResourceVersion() string {
	if !in.HasSynced() {
		return ""
	}
	through := in.hub.through.Load() // before seen: it must not run ahead of what is shown
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.stopped {
		through = 0
	}
	return strconv.FormatInt(max(through, int64(in.seen)), 10)
}

// IsStopped implements cache.SharedInformer.
func (in *Informer) IsStopped() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.stopped
}

// Run implements cache.SharedInformer.
func (in *Informer) Run(stop <-chan struct{}) { in.RunWithContext(wait.ContextForChannel(stop)) }

// RunWithContext implements cache.SharedInformer: it informs until ctx ends,
// once; no handler is called after it has returned.
func (in *Informer) RunWithContext(ctx context.Context) {
	in.mu.Lock()
	again := in.started
	in.started = true
	in.mu.Unlock()
	if again {
		in.hub.log.WarnContext(ctx, "informer has run already", "kind", in.kind.Name)
		return
	}
	var detecting sync.WaitGroup
	defer detecting.Wait()
	detecting.Go(func() { in.detector.Run(ctx.Done()) }) // returns at once unless tests look for mutations
	in.hub.join(ctx, in)
	<-ctx.Done()
	in.hub.part(in)
	in.mu.Lock()
	in.stopped = true
	handlers := in.handlers
	in.mu.Unlock()
	for _, h := range handlers {
		h.stop()
	}
	for _, h := range handlers {
		h.wait()
	}
}

func (in *Informer) tellLocked(n note) {
	for _, h := range in.handlers {
		h.tell(n)
	}
}

// show makes the index what view is, and tells the handlers the difference.
func (in *Informer) show(ctx context.Context, view store.View) {
	in.mu.Lock()
	defer in.mu.Unlock()
	there := map[string]bool{}
	if in.thin != nil {
		for e := range view.Ascend(in.kind.Prefix, in.kind.Prefix) {
			key := e.Key[len(in.kind.Prefix):]
			there[key] = in.fileLocked(ctx, key, e, nil)
		}
	} else {
		for obj := range in.kind.Each(view) {
			key, err := cache.MetaNamespaceKeyFunc(obj)
			if err != nil {
				in.failed(ctx, key, err)
				continue
			}
			there[key] = true
			in.putLocked(ctx, key, obj)
		}
	}
	for _, key := range in.index.ListKeys() {
		if !there[key] {
			in.goneLocked(ctx, key, nil)
		}
	}
	in.seen = view.Revision()
	if !in.HasSynced() {
		in.synced.close()
		in.tellLocked(note{})
	}
}

// change takes in one event.
func (in *Informer) change(ctx context.Context, e *store.Event) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if e.Revision <= in.seen {
		return
	}
	key := e.Key[len(in.kind.Prefix):]
	obj, err := in.kind.Told(e)
	switch {
	case err != nil: // unreadable is the same as gone, as it is for a list
		in.failed(ctx, key, err)
		in.goneLocked(ctx, key, nil)
	case e.Entry == nil:
		in.goneLocked(ctx, key, obj)
	case in.thin != nil:
		in.fileLocked(ctx, key, e.Entry, in.transformedLocked(ctx, key, obj))
	default:
		in.putLocked(ctx, key, obj)
	}
}

func (in *Informer) failed(ctx context.Context, key string, err error) {
	in.hub.log.ErrorContext(ctx, "object is not shown to readers", "kind", in.kind.Name, "key", key, "error", err)
}

func (in *Informer) transformedLocked(ctx context.Context, key string, obj any) any {
	if in.transform == nil {
		return obj
	}
	out, err := in.transform(obj)
	if err != nil {
		in.failed(ctx, key, err)
		return obj
	}
	return out
}

// fileLocked is putLocked for a thin index: obj is what e holds, or nil if it
// has not been read yet. It is false if e cannot be read.
func (in *Informer) fileLocked(ctx context.Context, key string, e *store.Entry, obj any) bool {
	was := in.thin.entry(key)
	if was != nil && was.Mod == e.Mod {
		return true
	}
	var old any
	var err error
	if obj == nil {
		obj, err = in.read(e)
	}
	if was != nil && err == nil {
		old, err = in.read(was)
	}
	if err == nil {
		in.detector.AddObject(obj)
		err = in.thin.put(key, e, obj)
	}
	if err != nil {
		in.failed(ctx, key, err)
		return false
	}
	in.tellLocked(note{old: old, new: obj, initial: old == nil && !in.HasSynced()})
	return true
}

func (in *Informer) putLocked(ctx context.Context, key string, obj any) {
	old, exists, err := in.index.GetByKey(key)
	if err != nil {
		in.failed(ctx, key, err)
		return
	}
	if exists && version(old) == version(obj) {
		return
	}
	obj = in.transformedLocked(ctx, key, obj)
	in.detector.AddObject(obj)
	if !exists {
		err = in.index.Add(obj)
		in.tellLocked(note{new: obj, initial: !in.HasSynced()})
	} else {
		err = in.index.Update(obj)
		in.tellLocked(note{old: old, new: obj})
	}
	if err != nil {
		in.failed(ctx, key, err)
	}
}

// goneLocked drops key; last is the object as it was, nil if that is unknown.
func (in *Informer) goneLocked(ctx context.Context, key string, last any) {
	old, exists, err := in.index.GetByKey(key)
	if err == nil && !exists {
		return
	}
	if last == nil {
		last = cache.DeletedFinalStateUnknown{Key: key, Obj: old}
	} else {
		last = in.transformedLocked(ctx, key, last)
	}
	if in.thin != nil {
		in.thin.drop(key)
	} else if err := in.index.Delete(last); err != nil {
		in.failed(ctx, key, err)
	}
	in.tellLocked(note{old: last})
}

func version(obj any) string {
	m, err := meta.Accessor(obj)
	if err != nil {
		return ""
	}
	return m.GetResourceVersion()
}
