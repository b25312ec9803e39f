// Package storage is k8s.io/apiserver's storage.Interface on the replicated
// store.
//
// Its invariant: there is no second copy of the truth. Reads are views of the
// replica, every write is one transaction guarded by the revision it was
// decided on, and an object decoded once is shared by all who read it.
package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/value"

	"skein.dev/skein/api/store"
)

// futureWait is how long a request for a revision the replica has not reached
// is held before it fails with "Too large resource version".
const futureWait = 3 * time.Second

// Config says how one resource is kept.
type Config struct {
	Store store.Store
	// Codec encodes to the stored version and decodes to the hub type.
	Codec runtime.Codec
	// Root stands before every key ("/registry"); Prefix is the resource's
	// own part ("/pods"), which every key handed to the storage begins with.
	Root, Prefix string
	Resource     schema.GroupResource
	New          func() runtime.Object
	NewList      func() runtime.Object
	// Transformer seals values; nil stores them as encoded.
	Transformer value.Transformer
	// Claims returns the keys that an object holds for itself alone, such as
	// that of its cluster IP. They are taken and given back in the same
	// transaction as the object changes; nil: none.
	Claims func(obj runtime.Object) []string
	// Bare makes watches deliver plain objects, one copy each, instead of
	// objects that share one encoding.
	Bare bool
	// Log gets what no caller is told; nil discards.
	Log *slog.Logger
}

// Storage keeps one resource. It implements storage.Interface and is safe for
// concurrent use.
type Storage struct {
	store     store.Store
	prefix    string
	resource  schema.GroupResource
	root      string
	all       string // before every key: root and prefix
	newFunc   func() runtime.Object
	claims    func(obj runtime.Object) []string
	versioner versioner
	bare      bool
	sized     atomic.Bool
	compacted atomic.Int64
	log       *slog.Logger

	// coder is replaced as a whole, never changed: decoded objects are
	// cached by its address.
	coder atomic.Pointer[coder]
}

var _ storage.Interface = (*Storage)(nil)

// New checks c and returns its storage.
func New(c Config) (*Storage, error) {
	if c.Store == nil || c.Codec == nil || c.New == nil || c.Prefix == "" {
		return nil, errors.New("storage: Store, Codec, New and Prefix are mandatory")
	}
	s := &Storage{
		store:    c.Store,
		root:     strings.TrimSuffix(c.Root, "/"),
		prefix:   directory(c.Prefix),
		resource: c.Resource,
		newFunc:  c.New,
		claims:   c.Claims,
		bare:     c.Bare,
		log:      c.Log,
	}
	s.all = keys(c.Root, c.Prefix)
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.setCoder(c.Codec, c.Transformer)
	return s, nil
}

func directory(prefix string) string { return "/" + strings.Trim(prefix, "/") + "/" }

// keys is what all keys of a resource begin with.
func keys(root, prefix string) string { return strings.TrimSuffix(root, "/") + directory(prefix) }

func (s *Storage) setCoder(codec runtime.Codec, t value.Transformer) {
	_, dynamic := s.newFunc().(runtime.Unstructured)
	s.coder.Store(&coder{codec: codec, transformer: t, newFunc: s.newFunc, dynamic: dynamic})
}

// Versioner implements storage.Interface.
func (s *Storage) Versioner() storage.Versioner { return s.versioner }

func (s *Storage) key(key string, recursive bool) (string, error) {
	k, err := storage.PrepareKey(s.prefix, key, recursive)
	if err != nil {
		return "", err
	}
	return s.root + k, nil
}

// Get implements storage.Interface.
func (s *Storage) Get(ctx context.Context, key string, opts storage.GetOptions, out runtime.Object) error {
	k, err := s.key(key, false)
	if err != nil {
		return err
	}
	view, err := s.view(ctx, opts.ResourceVersion)
	if err != nil {
		return err
	}
	e := view.Get(k)
	if e == nil {
		if opts.IgnoreNotFound {
			return runtime.SetZeroValue(out)
		}
		return storage.NewKeyNotFoundError(k, 0)
	}
	obj, err := s.coder.Load().object(ctx, e)
	if err != nil {
		return corrupted(k, err)
	}
	// The copy is deep: what asks for one object often goes on to change it.
	return assign(out, obj.DeepCopyObject())
}

// view returns a state that satisfies the resource version of a request: ""
// is linearizable, "0" any, a number at least that new.
func (s *Storage) view(ctx context.Context, resourceVersion string) (store.View, error) {
	switch resourceVersion {
	case "":
		v, err := s.store.Current(ctx)
		return v, s.storeError(err)
	case "0":
		return s.store.Local(), nil
	}
	rev, err := s.versioner.ParseResourceVersion(resourceVersion)
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid resource version: %v", err))
	}
	if err := s.await(ctx, rev); err != nil {
		return nil, err
	}
	return s.store.Local(), nil
}

// await returns once the replica has applied rev, or the error that tells a
// client to come back later.
func (s *Storage) await(ctx context.Context, rev uint64) error {
	if uint64(s.store.Local().Revision()) >= rev {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, futureWait)
	defer cancel()
	if s.store.Wait(wait, store.Revision(rev)) == nil {
		return nil
	}
	return storage.NewTooLargeResourceVersionError(rev, uint64(s.store.Local().Revision()), 1)
}

// Stats implements storage.Interface.
func (s *Storage) Stats(context.Context) (storage.Stats, error) {
	view := s.store.Local()
	from := s.root + s.prefix
	if !s.sized.Load() {
		return storage.Stats{ObjectCount: int64(view.Count(from, from))}, nil
	}
	var count, bytes int64
	for e := range view.Ascend(from, from) {
		count++
		bytes += int64(len(e.Value))
	}
	return storage.Stats{ObjectCount: count, EstimatedAverageObjectSizeBytes: bytes / max(count, 1)}, nil
}

// EnableResourceSizeEstimation implements storage.Interface. The replica
// knows its own keys, so the function is not needed.
func (s *Storage) EnableResourceSizeEstimation(storage.KeysFunc) error {
	s.sized.Store(true)
	return nil
}

// ReadinessCheck implements storage.Interface: the replica is always there;
// whether it can write is a check of its own.
func (s *Storage) ReadinessCheck() error { return nil }

// RequestWatchProgress implements storage.Interface. It does nothing: only
// upstream's cache in front of a remote store asks for it.
func (s *Storage) RequestWatchProgress(context.Context) error { return nil }

// GetCurrentResourceVersion implements storage.Interface.
func (s *Storage) GetCurrentResourceVersion(ctx context.Context) (uint64, error) {
	v, err := s.store.Current(ctx)
	if err != nil {
		return 0, s.storeError(err)
	}
	return uint64(v.Revision()), nil
}

// CompactRevision implements storage.Interface: the newest revision this
// storage has been told is gone.
func (s *Storage) CompactRevision() int64 { return s.compacted.Load() }

// assign sets *out to *obj, which must be of one type.
func assign(out, obj runtime.Object) error {
	dst, src := reflect.ValueOf(out), reflect.ValueOf(obj)
	if dst.Kind() != reflect.Pointer || dst.Type() != src.Type() {
		return fmt.Errorf("assign %T to %T: types differ", obj, out)
	}
	dst.Elem().Set(src.Elem())
	return nil
}
