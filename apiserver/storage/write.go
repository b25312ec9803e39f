package storage

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"

	"skein.dev/skein/api/role"
	"skein.dev/skein/api/store"
)

// ClaimRoot stands before the keys that objects claim.
const ClaimRoot = "/skein/claims/"

// Create implements storage.Interface.
func (s *Storage) Create(ctx context.Context, key string, obj, out runtime.Object, ttl uint64) error {
	k, err := s.key(key, false)
	if err != nil {
		return err
	}
	if v, err := s.versioner.ObjectResourceVersion(obj); err == nil && v != 0 {
		return storage.ErrResourceVersionSetOnCreate
	}
	if err := s.versioner.PrepareObjectForStorage(obj); err != nil {
		return fmt.Errorf("prepare %s for storage: %w", k, err)
	}
	c := s.coder.Load()
	data, err := runtime.Encode(c.codec, obj)
	if err != nil {
		return err
	}
	sealed, err := c.seal(ctx, k, data)
	if err != nil {
		return err
	}
	t := store.Txn{
		Guards: []store.Guard{{Key: k}},
		Ops:    []store.Op{{Key: k, Value: sealed, TTL: int64(ttl)}},
	}
	s.claim(&t, k, nil, obj)
	res, err := s.propose(ctx, t)
	if err != nil {
		return err
	}
	if !res.Held {
		return s.refused(k, res, storage.NewKeyExistsError(k, 0))
	}
	if out == nil {
		return nil
	}
	return c.into(data, out, res.Revision)
}

// propose adds the fence that ctx carries.
func (s *Storage) propose(ctx context.Context, t store.Txn) (store.Result, error) {
	if f, ok := role.From(ctx); ok {
		t.Fence = &f
	}
	res, err := s.store.Propose(ctx, t)
	return res, s.storeError(err)
}

// claim adds to t what turns old's claims into obj's; either may be nil.
func (s *Storage) claim(t *store.Txn, key string, old, obj runtime.Object) {
	if s.claims == nil {
		return
	}
	var had, wants []string
	if old != nil {
		had = s.claims(old)
	}
	if obj != nil {
		wants = s.claims(obj)
	}
	for _, c := range wants {
		if !slices.Contains(had, c) {
			t.Guards = append(t.Guards, store.Guard{Key: ClaimRoot + c})
			t.Ops = append(t.Ops, store.Op{Key: ClaimRoot + c, Value: []byte(key)})
		}
	}
	for _, c := range had {
		if !slices.Contains(wants, c) {
			t.Ops = append(t.Ops, store.Op{Key: ClaimRoot + c, Delete: true})
		}
	}
}

// refused tells a claim that is taken from an object that stands otherwise
// than its guard said.
func (s *Storage) refused(key string, res store.Result, otherwise error) error {
	if res.Failed != nil && res.Failed.Key != key {
		return &ClaimError{Key: res.Failed.Key}
	}
	return otherwise
}

// state is an object as an update or deletion found it.
type state struct {
	obj     runtime.Object // the caller's own; nil: could not be decoded
	data    []byte
	rev     store.Revision
	stale   bool
	current bool // as the store has it now, not as a cache said
}

// load reads the state of key from e, nil meaning that there is none.
func (s *Storage) load(ctx context.Context, key string, e *store.Entry, v reflect.Value, ignoreNotFound bool) (*state, error) {
	st := &state{current: true, obj: newLike(v)}
	if e == nil {
		if !ignoreNotFound {
			return nil, storage.NewKeyNotFoundError(key, 0)
		}
		return st, runtime.SetZeroValue(st.obj)
	}
	st.rev = e.Mod
	c := s.coder.Load()
	var err error
	if st.data, st.stale, err = c.open(ctx, e); err != nil {
		return st, err
	}
	return st, c.into(st.data, st.obj, e.Mod)
}

func newLike(v reflect.Value) runtime.Object {
	if u, ok := reflect.TypeAssert[runtime.Unstructured](v.Addr()); ok {
		return u.NewEmptyInstance()
	}
	return reflect.New(v.Type()).Interface().(runtime.Object)
}

// suggested makes a state of an object that the caller believes to be current.
func (s *Storage) suggested(obj runtime.Object) (*state, error) {
	rv, err := s.versioner.ObjectResourceVersion(obj)
	if err != nil {
		return nil, fmt.Errorf("read version of cached object: %w", err)
	}
	st := &state{obj: obj.DeepCopyObject(), rev: store.Revision(rv)}
	if err := s.versioner.PrepareObjectForStorage(st.obj); err != nil {
		return nil, fmt.Errorf("prepare cached object: %w", err)
	}
	if st.data, err = runtime.Encode(s.coder.Load().codec, st.obj); err != nil {
		return nil, err
	}
	return st, s.versioner.UpdateObject(st.obj, rv)
}

// Delete implements storage.Interface.
func (s *Storage) Delete(ctx context.Context, key string, out runtime.Object, pre *storage.Preconditions,
	validate storage.ValidateObjectFunc, cached runtime.Object, opts storage.DeleteOptions,
) error {
	k, err := s.key(key, false)
	if err != nil {
		return err
	}
	v, err := conversion.EnforcePtr(out)
	if err != nil {
		return fmt.Errorf("delete %s: %w", k, err)
	}
	if opts.ExpectTransformOrDecodeError {
		return s.deleteCorrupt(ctx, k, v, validate)
	}
	read := func() (*state, error) { return s.read(ctx, k, v, false) }
	st, err := s.begin(ctx, k, v, cached, read)
	if err != nil {
		return err
	}
	for {
		if err = pre.Check(k, st.obj); err == nil {
			err = validate(ctx, st.obj)
		}
		if err != nil {
			var same bool
			if st, same, err = s.reread(st, err, read); same || err != nil {
				return err
			}
			continue
		}
		t := store.Txn{Guards: []store.Guard{{Key: k, Mod: st.rev}}, Ops: []store.Op{{Key: k, Delete: true}}}
		s.claim(&t, k, st.obj, nil)
		res, err := s.propose(ctx, t)
		if err != nil {
			return err
		}
		if res.Held {
			return s.coder.Load().into(st.data, out, res.Revision)
		}
		if st, err = s.load(ctx, k, res.Failed, v, false); err != nil {
			return err
		}
	}
}

// deleteCorrupt removes an object that cannot be read; one that can be read
// is refused, for it has finalizers and rules to keep.
func (s *Storage) deleteCorrupt(ctx context.Context, k string, v reflect.Value, validate storage.ValidateObjectFunc) error {
	for e := s.store.Local().Get(k); ; {
		if e == nil {
			return storage.NewKeyNotFoundError(k, 0)
		}
		if _, err := s.load(ctx, k, e, v, false); err == nil {
			return storage.NewInvalidObjError(k, "the object is not corrupt: an unsafe deletion is refused")
		}
		if err := validate(ctx, nil); err != nil {
			return err
		}
		t := store.Txn{Guards: []store.Guard{{Key: k, Mod: e.Mod}}, Ops: []store.Op{{Key: k, Delete: true}}}
		res, err := s.propose(ctx, t)
		if err != nil || res.Held {
			return err
		}
		e = res.Failed
	}
}

// read loads the state of key as of now, by a linearizable read.
func (s *Storage) read(ctx context.Context, key string, v reflect.Value, ignoreNotFound bool) (*state, error) {
	view, err := s.store.Current(ctx)
	if err != nil {
		return nil, s.storeError(err)
	}
	return s.load(ctx, key, view.Get(key), v, ignoreNotFound)
}

// begin returns the state to decide on first: what the caller suggests, or
// what this replica has. The guard of the write finds out whether that is
// old; only a decision to refuse must be repeated on a current state.
func (s *Storage) begin(ctx context.Context, key string, v reflect.Value, cached runtime.Object, read func() (*state, error)) (*state, error) {
	if cached != nil {
		return s.suggested(cached)
	}
	e := s.store.Local().Get(key)
	if e == nil {
		return read()
	}
	st, err := s.load(ctx, key, e, v, false)
	if err != nil {
		return read()
	}
	st.current = false
	return st, nil
}

// reread is called when a decision on st failed with cause. If st was only
// suggested it returns the current state to decide on; else, or if that is
// the very same one, same is true and err is cause.
func (s *Storage) reread(st *state, cause error, read func() (*state, error)) (next *state, same bool, err error) {
	if st.current {
		return st, true, cause
	}
	next, err = read()
	if err != nil {
		return nil, false, err
	}
	if next.rev == st.rev {
		return next, true, cause
	}
	return next, false, nil
}

// GuaranteedUpdate implements storage.Interface.
func (s *Storage) GuaranteedUpdate(ctx context.Context, key string, out runtime.Object, ignoreNotFound bool,
	pre *storage.Preconditions, update storage.UpdateFunc, cached runtime.Object,
) error {
	k, err := s.key(key, false)
	if err != nil {
		return err
	}
	v, err := conversion.EnforcePtr(out)
	if err != nil {
		return fmt.Errorf("update %s: %w", k, err)
	}
	read := func() (*state, error) { return s.read(ctx, k, v, ignoreNotFound) }
	st, err := s.begin(ctx, k, v, cached, read)
	if err != nil {
		return err
	}
	for {
		data, t, err := s.decide(ctx, k, st, pre, update)
		if err != nil {
			var same bool
			if st, same, err = s.reread(st, err, read); same || err != nil {
				return err
			}
			continue
		}
		if !st.stale && bytes.Equal(data, st.data) {
			if st.current {
				return s.coder.Load().into(data, out, st.rev)
			}
			if st, err = read(); err != nil {
				return err
			}
			continue
		}
		res, err := s.propose(ctx, t)
		if err != nil {
			return err
		}
		if res.Held {
			return s.coder.Load().into(data, out, res.Revision)
		}
		if err := s.refused(k, res, nil); err != nil {
			return err
		}
		if st, err = s.load(ctx, k, res.Failed, v, ignoreNotFound); err != nil {
			return err
		}
	}
}

// decide runs update on st and returns the new encoding and the transaction
// that would store it.
func (s *Storage) decide(ctx context.Context, k string, st *state, pre *storage.Preconditions, update storage.UpdateFunc) ([]byte, store.Txn, error) {
	if err := pre.Check(k, st.obj); err != nil {
		return nil, store.Txn{}, err
	}
	var old runtime.Object
	if s.claims != nil && st.rev != 0 {
		old = st.obj.DeepCopyObject()
	}
	ttl := int64(0)
	if e := s.store.Local().Get(k); e != nil && e.Mod == st.rev {
		ttl = e.TTL
	}
	obj, newTTL, err := update(st.obj, storage.ResponseMeta{ResourceVersion: uint64(st.rev), TTL: ttl})
	if err != nil {
		return nil, store.Txn{}, err
	}
	if newTTL != nil {
		ttl = int64(*newTTL)
	}
	if err := s.versioner.PrepareObjectForStorage(obj); err != nil {
		return nil, store.Txn{}, fmt.Errorf("prepare %s for storage: %w", k, err)
	}
	c := s.coder.Load()
	data, err := runtime.Encode(c.codec, obj)
	if err != nil {
		return nil, store.Txn{}, err
	}
	sealed, err := c.seal(ctx, k, data)
	if err != nil {
		return nil, store.Txn{}, err
	}
	t := store.Txn{
		Guards: []store.Guard{{Key: k, Mod: st.rev}},
		Ops:    []store.Op{{Key: k, Value: sealed, TTL: ttl}},
	}
	s.claim(&t, k, old, obj)
	return data, t, nil
}
