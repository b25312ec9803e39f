package replica

import (
	"sync"

	"k8s.io/client-go/tools/cache"
)

// note is one thing that a handler is told: added without old, updated with
// both, deleted without new, and without either that it knows all there was.
type note struct {
	old, new any
	initial  bool
}

// handler tells one event handler what happens, in order and one at a time. It
// has a goroutine only while there is something to tell.
type handler struct {
	to     cache.ResourceEventHandler
	synced done

	mu      sync.Mutex // guards the fields below
	queue   []note
	telling bool
	stopped bool
	idle    sync.Cond // telling has become false
}

var _ cache.ResourceEventHandlerRegistration = (*handler)(nil)

func newHandler(to cache.ResourceEventHandler, name string) *handler {
	h := &handler{to: to, synced: done{name: name, closed: make(chan struct{})}}
	h.idle.L = &h.mu
	return h
}

// HasSynced implements cache.ResourceEventHandlerRegistration.
func (h *handler) HasSynced() bool { return cache.IsDone(&h.synced) }

// HasSyncedChecker implements cache.ResourceEventHandlerRegistration.
func (h *handler) HasSyncedChecker() cache.DoneChecker { return &h.synced }

// tell never blocks: the queue is as long as the handler is slow.
func (h *handler) tell(n note) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return
	}
	h.queue = append(h.queue, n)
	if !h.telling {
		h.telling = true
		go h.drain()
	}
}

func (h *handler) drain() {
	var batch []note
	for {
		h.mu.Lock()
		if batch, h.queue = h.queue, nil; len(batch) == 0 {
			h.telling = false
			h.idle.Broadcast()
			h.mu.Unlock()
			return
		}
		h.mu.Unlock()
		for _, n := range batch {
			if h.isStopped() {
				break
			}
			h.deliver(n)
		}
	}
}

func (h *handler) deliver(n note) {
	switch {
	case n.old != nil && n.new != nil:
		h.to.OnUpdate(n.old, n.new)
	case n.new != nil:
		h.to.OnAdd(n.new, n.initial)
	case n.old != nil:
		h.to.OnDelete(n.old)
	default:
		h.synced.close()
	}
}

func (h *handler) isStopped() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stopped
}

// stop tells nothing more than what is being told.
func (h *handler) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped, h.queue = true, nil
}

// wait blocks until a handler that was stopped has returned.
func (h *handler) wait() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.telling {
		h.idle.Wait()
	}
}

// done is something that happens once. It implements cache.DoneChecker.
type done struct {
	name   string
	closed chan struct{}
	once   sync.Once
}

// Name implements cache.DoneChecker.
func (d *done) Name() string { return d.name }

// Done implements cache.DoneChecker.
func (d *done) Done() <-chan struct{} { return d.closed }

func (d *done) close() { d.once.Do(func() { close(d.closed) }) }
