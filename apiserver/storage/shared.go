package storage

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skein.dev/skein/api/store"
)

// shared is an object on its way to many watches: whoever encodes it first
// encodes it for all. It implements runtime.CacheableObject.
type shared struct {
	metav1.Object

	obj runtime.Object

	mu  sync.Mutex // guards the field below
	enc map[runtime.Identifier]*encoding
}

var _ runtime.CacheableObject = (*shared)(nil)

type encoding struct {
	once sync.Once
	raw  []byte
	err  error
}

func newShared(obj runtime.Object) (*shared, error) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	return &shared{Object: m, obj: obj}, nil
}

// CacheEncode implements runtime.CacheableObject.
func (o *shared) CacheEncode(id runtime.Identifier, encode func(runtime.Object, io.Writer) error, w io.Writer) error {
	o.mu.Lock()
	e := o.enc[id]
	if e == nil {
		if o.enc == nil {
			o.enc = map[runtime.Identifier]*encoding{}
		}
		e = &encoding{}
		o.enc[id] = e
	}
	o.mu.Unlock()
	e.once.Do(func() {
		var b bytes.Buffer
		e.err = encode(o.GetObject(), &b)
		e.raw = b.Bytes()
	})
	if e.err != nil {
		return e.err
	}
	_, err := w.Write(e.raw)
	return err
}

// GetObject implements runtime.CacheableObject; the result is the caller's.
func (o *shared) GetObject() runtime.Object { return o.obj.DeepCopyObject() }

// GetObjectKind implements runtime.Object.
func (o *shared) GetObjectKind() schema.ObjectKind { return o.obj.GetObjectKind() }

// DeepCopyObject implements runtime.Object.
func (o *shared) DeepCopyObject() runtime.Object {
	obj := o.obj.DeepCopyObject()
	m, err := meta.Accessor(obj)
	if err != nil {
		return obj
	}
	return &shared{Object: m, obj: obj}
}

// change is an event decoded by one coder.
type change struct {
	now *shared // nil: deleted

	once sync.Once
	prev *shared
	err  error
}

// changes is what is remembered with an event: its decoding by each coder.
type changes struct {
	mu sync.Mutex // guards the field below
	by map[*coder]*change
}

func (s *Storage) change(ctx context.Context, c *coder, e *store.Event) (*change, error) {
	v, err := e.Shared(func(*store.Event) (any, error) { return &changes{by: map[*coder]*change{}}, nil })
	if err != nil {
		return nil, err
	}
	all := v.(*changes)
	all.mu.Lock()
	defer all.mu.Unlock()
	if got := all.by[c]; got != nil {
		return got, nil
	}
	ch := &change{}
	if e.Entry != nil {
		obj, err := c.object(ctx, e.Entry)
		if err != nil {
			return nil, err
		}
		if ch.now, err = newShared(obj); err != nil {
			return nil, err
		}
	}
	all.by[c] = ch
	return ch, nil
}

// before is the object as it was, with the version of the change: what a
// watch that no longer sees the object is told.
func (ch *change) before(ctx context.Context, c *coder, e *store.Event) (*shared, error) {
	ch.once.Do(func() {
		var obj runtime.Object
		if obj, ch.err = c.object(ctx, e.Prev); ch.err != nil {
			if e.Entry == nil {
				ch.err = lost(ch.err)
			}
			return
		}
		if obj, ch.err = at(obj, e.Revision); ch.err == nil {
			ch.prev, ch.err = newShared(obj)
		}
	})
	return ch.prev, ch.err
}

// lost says that an object went that could not be read any more.
func lost(err error) error {
	if _, ok := errors.AsType[*CorruptError](err); !ok {
		return err
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError,
		Reason:  metav1.StatusReasonStoreReadError,
		Message: "saw a DELETED event, but object data is corrupt: " + err.Error(),
	}}
}

// present is an object of the state a watch begins with.
func (s *Storage) present(ctx context.Context, c *coder, e *store.Entry) (*shared, error) {
	obj, err := c.object(ctx, e)
	if err != nil {
		return nil, err
	}
	return newShared(obj)
}
