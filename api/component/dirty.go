package component

import "sync"

// Dirty collects what has changed until one loop takes it. It is safe for
// concurrent use.
type Dirty[T comparable] struct {
	wake chan struct{} // holds at most one

	mu    sync.Mutex // guards the field below
	items map[T]struct{}
}

// NewDirty returns an empty set.
func NewDirty[T comparable]() *Dirty[T] {
	return &Dirty[T]{wake: make(chan struct{}, 1), items: map[T]struct{}{}}
}

// Add notes that there is something to do about x.
func (d *Dirty[T]) Add(x T) {
	d.mu.Lock()
	d.items[x] = struct{}{}
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Take empties the set; the map is the caller's.
func (d *Dirty[T]) Take() map[T]struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	items := d.items
	d.items = map[T]struct{}{}
	return items
}

// Wake has a value after an Add that no Take may have seen.
func (d *Dirty[T]) Wake() <-chan struct{} { return d.wake }
