package storage

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/value"

	"skein.dev/skein/api/store"
)

// coder turns stored values into objects and back.
type coder struct {
	codec       runtime.Codec
	transformer value.Transformer
	newFunc     func() runtime.Object
	// dynamic types (custom resources) are decoded differently by each
	// served version and schema, so the result is not kept with the entry.
	dynamic bool
}

// sealContext binds a sealed value to its key: moved elsewhere it does not open.
type sealContext string

func (k sealContext) AuthenticatedData() []byte { return []byte(k) }

// open returns the encoded object in e; stale says that it should be sealed anew.
func (c *coder) open(ctx context.Context, e *store.Entry) (data []byte, stale bool, err error) {
	if c.transformer == nil {
		return e.Value, false, nil
	}
	data, stale, err = c.transformer.TransformFromStorage(ctx, e.Value, sealContext(e.Key))
	if err != nil {
		return nil, false, storage.NewInternalError(fmt.Errorf("open %s: %w", e.Key, err))
	}
	return data, stale, nil
}

func (c *coder) seal(ctx context.Context, key string, data []byte) ([]byte, error) {
	if c.transformer == nil {
		return data, nil
	}
	out, err := c.transformer.TransformToStorage(ctx, data, sealContext(key))
	if err != nil {
		return nil, storage.NewInternalError(fmt.Errorf("seal %s: %w", key, err))
	}
	return out, nil
}

// into decodes data into obj and gives it the version rev.
func (c *coder) into(data []byte, obj runtime.Object, rev store.Revision) error {
	got, _, err := c.codec.Decode(data, nil, obj)
	if err != nil {
		return &CorruptError{Cause: fmt.Errorf("object not decodable: revision=%d: %w", rev, err)}
	}
	if got != obj {
		return &CorruptError{Cause: fmt.Errorf("object not decodable: got %T, want %T", got, obj)}
	}
	if _, ok := obj.(runtime.Unstructured); !ok {
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	}
	return storage.APIObjectVersioner{}.UpdateObject(obj, uint64(rev))
}

// fresh decodes e into an object of the caller's own.
func (c *coder) fresh(ctx context.Context, e *store.Entry, obj runtime.Object) error {
	data, _, err := c.open(ctx, e)
	if err != nil {
		return err
	}
	return c.into(data, obj, e.Mod)
}

// kept is what is remembered with an entry: its object for each coder that
// has read it, nearly always one.
type kept struct {
	mu   sync.Mutex // guards the fields below
	by   *coder
	obj  runtime.Object
	more map[*coder]runtime.Object
}

func (k *kept) get(c *coder) runtime.Object {
	if k.by == c {
		return k.obj
	}
	return k.more[c]
}

func (k *kept) put(c *coder, obj runtime.Object) {
	if k.by == nil {
		k.by, k.obj = c, obj
		return
	}
	if k.more == nil {
		k.more = map[*coder]runtime.Object{}
	}
	k.more[c] = obj
}

// remembered is what is remembered with e, nil if nobody has read it.
func remembered(e *store.Entry) *kept {
	v, err := e.Decoded(func(*store.Entry) (any, error) { return nil, errNotRead })
	if err != nil {
		return nil
	}
	k, _ := v.(*kept)
	return k
}

var errNotRead = errors.New("not read yet")

func (k *kept) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.by, k.obj, k.more = nil, nil, nil
}

// apart returns the object of e with the version rev, and has it remembered
// by nobody; read-only, as it may be shared if somebody else has had it
// remembered.
func (c *coder) apart(ctx context.Context, e *store.Entry, rev store.Revision) (runtime.Object, error) {
	if k := remembered(e); k != nil {
		k.mu.Lock()
		obj := k.get(c)
		k.mu.Unlock()
		if obj != nil && rev == e.Mod {
			return obj, nil
		}
		if obj != nil {
			return at(obj, rev)
		}
	}
	obj := c.newFunc()
	if err := c.fresh(ctx, e, obj); err != nil || rev == e.Mod {
		return obj, err
	}
	return obj, storage.APIObjectVersioner{}.UpdateObject(obj, uint64(rev))
}

// object returns the object of e, shared with all other readers: read-only.
func (c *coder) object(ctx context.Context, e *store.Entry) (runtime.Object, error) {
	if c.dynamic {
		obj := c.newFunc()
		return obj, c.fresh(ctx, e, obj)
	}
	v, err := e.Decoded(func(*store.Entry) (any, error) { return &kept{}, nil })
	if err != nil {
		return nil, err
	}
	k := v.(*kept)
	k.mu.Lock()
	defer k.mu.Unlock()
	if obj := k.get(c); obj != nil {
		return obj, nil
	}
	obj := c.newFunc()
	if err := c.fresh(ctx, e, obj); err != nil {
		return nil, err
	}
	k.put(c, obj)
	return obj, nil
}

// at returns obj with another version. The two share everything below the
// first level.
func at(obj runtime.Object, rev store.Revision) (runtime.Object, error) {
	var out runtime.Object
	if _, ok := obj.(runtime.Unstructured); ok {
		out = obj.DeepCopyObject()
	} else {
		v := reflect.New(reflect.TypeOf(obj).Elem())
		v.Elem().Set(reflect.ValueOf(obj).Elem())
		out = v.Interface().(runtime.Object)
	}
	return out, storage.APIObjectVersioner{}.UpdateObject(out, uint64(rev))
}
