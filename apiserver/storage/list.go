package storage

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"reflect"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"

	"skein.dev/skein/api/store"
)

// maxCorrupt is how many unreadable objects a list names before it gives up.
const maxCorrupt = 100

// GetList implements storage.Interface. The items of typed lists share what
// is below their first level with other readers, as upstream's cache does.
func (s *Storage) GetList(ctx context.Context, key string, opts storage.ListOptions, list runtime.Object) error {
	prefix, err := s.key(key, opts.Recursive)
	if err != nil {
		return err
	}
	ptr, err := meta.GetItemsPtr(list)
	if err != nil {
		return err
	}
	items, err := conversion.EnforcePtr(ptr)
	if err != nil || items.Kind() != reflect.Slice {
		return fmt.Errorf("list %s: items of %T are no slice: %w", prefix, list, err)
	}
	view, from, err := s.listView(ctx, prefix, opts)
	if err != nil {
		return err
	}
	p := page{s: s, opts: opts, items: items, coder: s.coder.Load()}
	if err := p.fill(ctx, entries(view, prefix, from, opts.Recursive)); err != nil {
		return err
	}
	token, remaining := "", (*int64)(nil)
	if p.more {
		left := int64(view.Count(prefix, p.last+"\x00")) + opts.Predicate.Limit
		token, remaining, err = storage.PrepareContinueToken(p.last, prefix, int64(view.Revision()), left, true, opts)
		if err != nil {
			return err
		}
	}
	if items.IsNil() {
		items.Set(reflect.MakeSlice(items.Type(), 0, 0))
	}
	if err := s.versioner.UpdateList(list, uint64(view.Revision()), token, remaining); err != nil {
		return err
	}
	opts.Predicate.SetShardInfoOnList(list)
	return nil
}

// listView finds the state that a list is to show and the key it begins at.
func (s *Storage) listView(ctx context.Context, prefix string, opts storage.ListOptions) (store.View, string, error) {
	exact, from, err := storage.ValidateListOptions(prefix, s.versioner, opts)
	if err != nil {
		return nil, "", err
	}
	if from == "" {
		from = prefix
	}
	if exact <= 0 {
		rv := opts.ResourceVersion
		if opts.Predicate.Continue != "" {
			rv = ""
		}
		view, err := s.view(ctx, rv)
		return view, from, err
	}
	if err := s.await(ctx, uint64(exact)); err != nil {
		return nil, "", err
	}
	view, err := s.store.At(store.Revision(exact))
	if errors.Is(err, store.ErrCompacted) {
		s.noteCompaction()
		return nil, "", expired(opts, prefix, from, s.store.Local().Revision())
	}
	return view, from, s.storeError(err)
}

// noteCompaction finds out by bisection how far history is gone.
func (s *Storage) noteCompaction() {
	lo, hi := store.Revision(s.compacted.Load()), s.store.Local().Revision()
	for lo < hi {
		mid := lo + (hi-lo)/2
		if _, err := s.store.At(mid); errors.Is(err, store.ErrCompacted) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	s.compacted.Store(int64(lo))
}

// expired is the answer to a list at a state that is gone. A chunked list is
// offered a token that goes on with the present state instead.
func expired(opts storage.ListOptions, prefix, from string, now store.Revision) error {
	if opts.Predicate.Continue == "" {
		return apierrors.NewResourceExpired("The resourceVersion for the provided list is too old.")
	}
	err := apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result. " +
		"You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. " +
		"Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.")
	if token, tokenErr := storage.EncodeContinue(from, prefix, -1); tokenErr == nil && now > 0 {
		err.ErrStatus.Continue = token
	}
	return err
}

func entries(view store.View, prefix, from string, recursive bool) iter.Seq[*store.Entry] {
	if recursive {
		return view.Ascend(prefix, from)
	}
	return func(yield func(*store.Entry) bool) {
		if e := view.Get(prefix); e != nil {
			yield(e)
		}
	}
}

// page collects the items of one answer.
type page struct {
	s       *Storage
	opts    storage.ListOptions
	coder   *coder
	items   reflect.Value
	last    string // key of the last entry looked at
	more    bool   // the limit was reached and entries are left
	corrupt []metav1.StatusCause
}

func (p *page) fill(ctx context.Context, all iter.Seq[*store.Entry]) error {
	limit, looked := int(p.opts.Predicate.Limit), 0
	for e := range all {
		if limit > 0 && p.items.Len() >= limit {
			p.more = true
			break
		}
		if looked++; looked%256 == 0 && ctx.Err() != nil {
			return storage.NewTimeoutError(e.Key, "request did not complete within requested timeout")
		}
		p.last = e.Key
		obj, err := p.coder.object(ctx, e)
		if err != nil {
			if err := p.skip(e.Key, err); err != nil {
				return err
			}
			continue
		}
		if ok, err := p.opts.Predicate.Matches(obj); err != nil || !ok {
			continue
		}
		p.items.Set(reflect.Append(p.items, reflect.ValueOf(obj).Elem()))
	}
	return p.verdict()
}

// skip notes an object that cannot be read, so that the answer names all of
// them; any other trouble ends the list.
func (p *page) skip(key string, err error) error {
	var c *CorruptError
	if !errors.As(err, &c) {
		if len(p.corrupt) == 0 {
			return err
		}
		p.corrupt = append(p.corrupt, metav1.StatusCause{
			Type: metav1.CauseTypeUnexpectedServerResponse, Message: err.Error(),
		})
		return p.verdict()
	}
	p.corrupt = append(p.corrupt, metav1.StatusCause{
		Type:    metav1.CauseTypeUnexpectedServerResponse,
		Field:   key,
		Message: storage.NewCorruptObjError(key, c).Error(),
	})
	if len(p.corrupt) < maxCorrupt {
		return nil
	}
	p.corrupt = append(p.corrupt, metav1.StatusCause{
		Type: metav1.CauseTypeTooMany, Message: "too many errors, the list is truncated",
	})
	return p.verdict()
}

func (p *page) verdict() error {
	if len(p.corrupt) == 0 {
		return nil
	}
	msg := fmt.Sprintf("failed to read one or more %s from the storage: %s", p.s.resource, p.corrupt[0].Message)
	if n := len(p.corrupt) - 1; n > 0 {
		msg = fmt.Sprintf("%s (and %d more)", msg, n)
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError,
		Reason: metav1.StatusReasonStoreReadError, Message: msg,
		Details: &metav1.StatusDetails{
			Group: p.s.resource.Group, Kind: p.s.resource.Resource, Name: "list", Causes: p.corrupt,
		},
	}}
}

// Keys returns the prefix under which this storage keeps the objects of
// namespace, or of all namespaces if it is empty.
func (s *Storage) Keys(namespace string) string {
	if namespace == "" {
		return s.all
	}
	return s.all + strings.TrimSuffix(namespace, "/") + "/"
}

// Peek returns an object of view, shared and read-only; nil if it is not there.
func (s *Storage) Peek(ctx context.Context, view store.View, namespace, name string) (runtime.Object, error) {
	e := view.Get(s.Keys(namespace) + name)
	if e == nil {
		return nil, nil //nolint:nilnil // absence is an answer
	}
	return s.coder.Load().object(ctx, e)
}

// Told is the object that a change has left or, when the change deleted it, as
// it was then with the revision of its end: shared and read-only.
func (s *Storage) Told(ctx context.Context, e *store.Event) (runtime.Object, error) {
	c := s.coder.Load()
	ch, err := s.change(ctx, c, e)
	if err != nil {
		return nil, err
	}
	told := ch.now
	if told == nil {
		if told, err = ch.before(ctx, c, e); err != nil {
			return nil, err
		}
	}
	return told.obj, nil
}

// Read is the object in e and ReadTold what Told is, but neither is
// remembered: each call reads it anew unless a request has had it read.
func (s *Storage) Read(ctx context.Context, e *store.Entry) (runtime.Object, error) {
	return s.coder.Load().apart(ctx, e, e.Mod)
}

// ReadTold is described at [Storage.Read].
func (s *Storage) ReadTold(ctx context.Context, e *store.Event) (runtime.Object, error) {
	if e.Entry != nil {
		return s.Read(ctx, e.Entry)
	}
	return s.coder.Load().apart(ctx, e.Prev, e.Revision)
}

// Forget drops what requests have had read of the objects in view.
func (s *Storage) Forget(view store.View) {
	for e := range view.Ascend(s.all, s.all) {
		if k := remembered(e); k != nil {
			k.forget()
		}
	}
}

// Any reports whether view has an object of this storage. It reads none.
func (s *Storage) Any(view store.View) bool {
	for range view.Ascend(s.all, s.all) {
		return true
	}
	return false
}

// Each yields the objects of view in namespace, all if it is empty, shared
// and read-only. Those that cannot be read are left out and logged.
func (s *Storage) Each(ctx context.Context, view store.View, namespace string) iter.Seq[runtime.Object] {
	prefix, c := s.Keys(namespace), s.coder.Load()
	return func(yield func(runtime.Object) bool) {
		for e := range view.Ascend(prefix, prefix) {
			obj, err := c.object(ctx, e)
			if err != nil {
				s.log.ErrorContext(ctx, "stored object is unreadable", "key", e.Key, "error", err)
				continue
			}
			if !yield(obj) {
				return
			}
		}
	}
}
