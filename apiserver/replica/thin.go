package replica

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/store"
)

// thin is an index that holds no objects: it knows the entries, which the
// replica has anyway, and reads an object when it is asked for. It is the
// index of kinds whose objects are large or many and seldom looked at.
type thin struct {
	name string
	open func(*store.Entry) (any, error) // the object in an entry

	mu       sync.RWMutex            // guards the fields below
	entries  map[string]*store.Entry // by NAMESPACE/NAME or NAME
	indexers cache.Indexers
	values   map[string]map[string]map[string]struct{} // index, value, key; not of the namespaces, which keys begin with
}

var _ cache.Indexer = (*thin)(nil)

func newThin(name string, open func(*store.Entry) (any, error)) *thin {
	return &thin{
		name: name, open: open, entries: map[string]*store.Entry{}, values: map[string]map[string]map[string]struct{}{},
		indexers: cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc},
	}
}

// put makes e, which obj was read from, what stands under key.
func (t *thin) put(key string, e *store.Entry, obj any) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropLocked(key)
	t.entries[key] = e
	for name, f := range t.indexers {
		if err := t.fileLocked(name, f, key, obj); err != nil {
			return err
		}
	}
	return nil
}

func (t *thin) drop(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropLocked(key)
}

func (t *thin) dropLocked(key string) {
	e := t.entries[key]
	delete(t.entries, key)
	if e == nil || len(t.indexers) == 1 {
		return
	}
	obj, err := t.open(e)
	for name, f := range t.indexers {
		if err != nil || name == cache.NamespaceIndex {
			continue
		}
		had, ferr := f(obj)
		if ferr != nil {
			continue // it was not filed either
		}
		for _, v := range had {
			if delete(t.values[name][v], key); len(t.values[name][v]) == 0 {
				delete(t.values[name], v)
			}
		}
	}
}

// fileLocked puts key under the values that f finds in obj.
func (t *thin) fileLocked(name string, f cache.IndexFunc, key string, obj any) error {
	if name == cache.NamespaceIndex {
		return nil
	}
	found, err := f(obj)
	if err != nil {
		return fmt.Errorf("index %s by %s: %w", key, name, err)
	}
	for _, v := range found {
		if t.values[name] == nil {
			t.values[name] = map[string]map[string]struct{}{}
		}
		if t.values[name][v] == nil {
			t.values[name][v] = map[string]struct{}{}
		}
		t.values[name][v][key] = struct{}{}
	}
	return nil
}

// entry is what stands under key, or nil.
func (t *thin) entry(key string) *store.Entry {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.entries[key]
}

// read returns the objects under keys; those that went meanwhile are left out.
func (t *thin) read(keys []string) ([]any, error) {
	out := make([]any, 0, len(keys))
	for _, key := range keys {
		obj, ok, err := t.GetByKey(key)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, obj)
		}
	}
	return out, nil
}

// GetByKey implements cache.Store.
func (t *thin) GetByKey(key string) (item any, exists bool, err error) {
	e := t.entry(key)
	if e == nil {
		return nil, false, nil
	}
	obj, err := t.open(e)
	return obj, err == nil, err
}

// Get implements cache.Store.
func (t *thin) Get(obj any) (item any, exists bool, err error) {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if err != nil {
		return nil, false, cache.KeyError{Obj: obj, Err: err}
	}
	return t.GetByKey(key)
}

// List implements cache.Store. What cannot be read is left out; it could when
// it came.
func (t *thin) List() []any {
	keys := t.ListKeys()
	out := make([]any, 0, len(keys))
	for _, key := range keys {
		if obj, ok, err := t.GetByKey(key); ok && err == nil {
			out = append(out, obj)
		}
	}
	return out
}

// ListKeys implements cache.Store.
func (t *thin) ListKeys() []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Collect(maps.Keys(t.entries))
}

// IndexKeys implements cache.Indexer.
func (t *thin) IndexKeys(name, value string) ([]string, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.indexers[name] == nil {
		return nil, fmt.Errorf("index %s of %s: %w", name, t.name, errNoIndex)
	}
	if name != cache.NamespaceIndex {
		return slices.Collect(maps.Keys(t.values[name][value])), nil
	}
	var out []string
	for key := range t.entries {
		if namespaceOf(key) == value {
			out = append(out, key)
		}
	}
	return out, nil
}

func namespaceOf(key string) string {
	ns, _, ok := strings.Cut(key, "/")
	if !ok {
		return ""
	}
	return ns
}

// ByIndex implements cache.Indexer.
func (t *thin) ByIndex(name, value string) ([]any, error) {
	keys, err := t.IndexKeys(name, value)
	if err != nil {
		return nil, err
	}
	return t.read(keys)
}

// Index implements cache.Indexer.
func (t *thin) Index(name string, obj any) ([]any, error) {
	f := t.GetIndexers()[name]
	if f == nil {
		return nil, fmt.Errorf("index %s of %s: %w", name, t.name, errNoIndex)
	}
	values, err := f(obj)
	if err != nil {
		return nil, fmt.Errorf("index by %s: %w", name, err)
	}
	keys := map[string]struct{}{}
	for _, v := range values {
		some, err := t.IndexKeys(name, v)
		if err != nil {
			return nil, err
		}
		for _, key := range some {
			keys[key] = struct{}{}
		}
	}
	return t.read(slices.Collect(maps.Keys(keys)))
}

// ListIndexFuncValues implements cache.Indexer.
func (t *thin) ListIndexFuncValues(name string) []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if name != cache.NamespaceIndex {
		return slices.Collect(maps.Keys(t.values[name]))
	}
	all := map[string]struct{}{}
	for key := range t.entries {
		all[namespaceOf(key)] = struct{}{}
	}
	return slices.Collect(maps.Keys(all))
}

// GetIndexers implements cache.Indexer.
func (t *thin) GetIndexers() cache.Indexers {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return maps.Clone(t.indexers)
}

// AddIndexers implements cache.Indexer.
func (t *thin) AddIndexers(more cache.Indexers) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name := range more {
		if t.indexers[name] != nil {
			return fmt.Errorf("index %s of %s: %w", name, t.name, errIndexTwice)
		}
	}
	maps.Copy(t.indexers, more)
	for key, e := range t.entries {
		obj, err := t.open(e)
		if err != nil {
			continue
		}
		for name, f := range more {
			if err := t.fileLocked(name, f, key, obj); err != nil {
				return err
			}
		}
	}
	return nil
}

// Only the replica changes what is here.

// Add implements cache.Store.
func (*thin) Add(any) error { return errReadOnly }

// Update implements cache.Store.
func (*thin) Update(any) error { return errReadOnly }

// Delete implements cache.Store.
func (*thin) Delete(any) error { return errReadOnly }

// Replace implements cache.Store.
func (*thin) Replace([]any, string) error { return errReadOnly }

// Resync implements cache.Store.
func (*thin) Resync() error { return nil }

// Bookmark implements cache.Store.
func (*thin) Bookmark(string) {}

// LastStoreSyncResourceVersion implements cache.Store; the informer's own
// index answers instead.
func (*thin) LastStoreSyncResourceVersion() string { return "" }
