package storage_test

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/apitesting"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	kstorage "k8s.io/apiserver/pkg/storage"
	suite "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/apiserver/pkg/storage/value"

	"skein.dev/skein/api/store"
	"skein.dev/skein/apiserver/storage"
	"skein.dev/skein/apiserver/storage/memstore"
	"skein.dev/skein/raftstore/storetest"
)

const (
	sealPrefix = "test!"
	suiteWait  = 10 * time.Second
)

type fixture struct {
	*storage.Storage

	mem    *memstore.Store
	codec  runtime.Codec
	prefix *suite.PrefixTransformer
}

type option func(*storage.Config)

func codecs(tb testing.TB) serializer.CodecFactory {
	tb.Helper()
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	for _, add := range []func(*runtime.Scheme) error{example.AddToScheme, examplev1.AddToScheme} {
		if err := add(scheme); err != nil {
			tb.Fatal(err)
		}
	}
	return serializer.NewCodecFactory(scheme)
}

func setup(tb testing.TB, opts ...option) *fixture {
	tb.Helper()
	f := &fixture{
		mem:    memstore.New(),
		codec:  apitesting.TestCodec(codecs(tb), examplev1.SchemeGroupVersion),
		prefix: suite.NewPrefixTransformer([]byte(sealPrefix), false),
	}
	c := storage.Config{
		Store: f.mem, Codec: f.codec, Prefix: "/pods/",
		Resource:    schema.GroupResource{Resource: "pods"},
		New:         func() runtime.Object { return &example.Pod{} },
		NewList:     func() runtime.Object { return &example.PodList{} },
		Transformer: f.prefix,
	}
	for _, o := range opts {
		o(&c)
	}
	s, err := storage.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	f.Storage, f.codec = s, c.Codec
	return f
}

// UpdatePrefixTransformer implements suite.InterfaceWithPrefixTransformer.
func (f *fixture) UpdatePrefixTransformer(modify suite.PrefixTransformerModifier) func() {
	codec, old := f.Coder()
	next := *old.(*suite.PrefixTransformer)
	f.SetCoder(codec, modify(&next))
	return func() { f.SetCoder(codec, old) }
}

// UpdateTransformer implements suite.InterfaceWithTransformerOverride.
func (f *fixture) UpdateTransformer(modify suite.TransformerModifier) func() {
	codec, old := f.Coder()
	f.SetCoder(codec, modify(old))
	return func() { f.SetCoder(codec, old) }
}

func (f *fixture) compact(_ context.Context, t *testing.T, rv string) {
	t.Helper()
	rev, err := strconv.ParseInt(rv, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	f.mem.Compact(store.Revision(rev))
	f.increaseRV(t.Context(), t) // a compaction takes a revision, as in the product
}

func (f *fixture) increaseRV(ctx context.Context, t *testing.T) int64 {
	t.Helper()
	res, err := f.mem.Propose(ctx, store.Txn{Ops: []store.Op{{Key: "increaseRV", Value: []byte("ok")}}})
	if err != nil {
		t.Fatal(err)
	}
	return int64(res.Revision)
}

// stored checks what is in the store itself, under the key that the suite names.
func (f *fixture) stored(_ context.Context, t *testing.T, key string) {
	t.Helper()
	e := f.mem.Local().Get(key)
	if e == nil {
		t.Fatalf("nothing stored under %s", key)
	}
	obj, err := runtime.Decode(f.codec, e.Value[len(sealPrefix):])
	if err != nil {
		t.Fatalf("decode %s: %v", key, err)
	}
	if pod := obj.(*example.Pod); pod.ResourceVersion != "" || pod.SelfLink != "" {
		t.Errorf("stored object has resourceVersion %q and selfLink %q, want none", pod.ResourceVersion, pod.SelfLink)
	}
}

type breakableTransformer struct {
	value.Transformer
	broken atomic.Bool
}

func (b *breakableTransformer) TransformFromStorage(ctx context.Context, data []byte, c value.Context) ([]byte, bool, error) {
	if b.broken.Load() {
		return nil, false, errors.New("synthetic error")
	}
	return b.Transformer.TransformFromStorage(ctx, data, c)
}

type breakableCodec struct {
	runtime.Codec
	broken atomic.Bool
}

func (b *breakableCodec) Decode(data []byte, gvk *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	if b.broken.Load() {
		return nil, nil, errors.New("synthetic error")
	}
	return b.Codec.Decode(data, gvk, into)
}

// run adapts a suite function with the usual three parameters.
func run(f func(context.Context, *testing.T, kstorage.Interface)) func(*testing.T) {
	return func(t *testing.T) {
		t.Parallel()
		f(t.Context(), t, setup(t))
	}
}

type suiteFunc = func(context.Context, *testing.T, kstorage.Interface)

func writes() map[string]suiteFunc {
	return map[string]suiteFunc{
		"CreateWithTTL":                              suite.RunTestCreateWithTTL,
		"CreateWithKeyExist":                         suite.RunTestCreateWithKeyExist,
		"UnconditionalDelete":                        suite.RunTestUnconditionalDelete,
		"ConditionalDelete":                          suite.RunTestConditionalDelete,
		"DeleteWithSuggestion":                       suite.RunTestDeleteWithSuggestion,
		"DeleteWithSuggestionAndConflict":            suite.RunTestDeleteWithSuggestionAndConflict,
		"DeleteWithConflict":                         suite.RunTestDeleteWithConflict,
		"DeleteWithSuggestionOfDeletedObject":        suite.RunTestDeleteWithSuggestionOfDeletedObject,
		"ValidateDeletionWithSuggestion":             suite.RunTestValidateDeletionWithSuggestion,
		"ValidateDeletionWithOnlySuggestionValid":    suite.RunTestValidateDeletionWithOnlySuggestionValid,
		"PreconditionalDeleteWithSuggestion":         suite.RunTestPreconditionalDeleteWithSuggestion,
		"PreconditionalDeleteWithOnlySuggestionPass": suite.RunTestPreconditionalDeleteWithOnlySuggestionPass,
		"GuaranteedUpdateWithTTL":                    suite.RunTestGuaranteedUpdateWithTTL,
		"GuaranteedUpdateWithConflict":               suite.RunTestGuaranteedUpdateWithConflict,
		"GuaranteedUpdateWithSuggestionAndConflict":  suite.RunTestGuaranteedUpdateWithSuggestionAndConflict,
		"KeySchema": suite.RunTestKeySchema,
	}
}

func lists() map[string]suiteFunc {
	return map[string]suiteFunc{
		"ListPaging":             suite.RunTestListPaging,
		"GetListRecursivePrefix": suite.RunTestGetListRecursivePrefix,
		"NamespaceScopedList":    suite.RunTestNamespaceScopedList,
	}
}

func watches() map[string]suiteFunc {
	return map[string]suiteFunc{
		"DelayedWatchDelivery":            suite.RunTestDelayedWatchDelivery,
		"WatchContextCancel":              suite.RunTestWatchContextCancel,
		"WatcherTimeout":                  suite.RunTestWatcherTimeout,
		"WatchDeleteEventHasLatestRV":     suite.RunTestWatchDeleteEventObjectHaveLatestRV,
		"WatchInitializationSignal":       suite.RunTestWatchInitializationSignal,
		"ClusterScopedWatch":              suite.RunTestClusterScopedWatch,
		"NamespaceScopedWatch":            suite.RunTestNamespaceScopedWatch,
		"SendInitialEventsBackwardCompat": suite.RunSendInitialEventsBackwardCompatibility,
		"WatchListMatchSingle":            suite.RunWatchListMatchSingle,
		"Watch":                           suite.RunTestWatch,
		"DeleteTriggerWatch":              suite.RunTestDeleteTriggerWatch,
		"WatchFromNonZero":                suite.RunTestWatchFromNonZero,
		"BookmarksWithCorrectVersion":     suite.RunTestOptionalWatchBookmarksWithCorrectResourceVersion,
	}
}

// TestPublishedSuiteOnRaft runs all functions that want nothing but a storage
// on the product's own store.
func TestPublishedSuiteOnRaft(t *testing.T) {
	onRaft := func(c *storage.Config) { c.Store = storetest.New(t) }
	for _, all := range []map[string]suiteFunc{writes(), lists(), watches(), {
		"Get": suite.RunTestGet, "WatchSemantics": suite.RunWatchSemantics, "WatchSemanticInitialEvents": suite.RunWatchSemanticInitialEventsExtended,
	}} {
		for name, f := range all {
			t.Run(name, func(t *testing.T) { f(t.Context(), t, setup(t, onRaft)) })
		}
	}
}

// TestPublishedSuiteWrites runs the write half of k8s.io/apiserver/pkg/storage/testing.
func TestPublishedSuiteWrites(t *testing.T) {
	for name, f := range writes() {
		t.Run(name, run(f))
	}
	t.Run("Create", func(t *testing.T) { f := setup(t); suite.RunTestCreate(t.Context(), t, f, f.stored) })
	t.Run("GuaranteedUpdate", func(t *testing.T) {
		f := setup(t)
		suite.RunTestGuaranteedUpdate(t.Context(), t, f, f.stored)
	})
	t.Run("GuaranteedUpdateChecksStoredData", func(t *testing.T) {
		suite.RunTestGuaranteedUpdateChecksStoredData(t.Context(), t, setup(t))
	})
	t.Run("TransformationFailure", func(t *testing.T) { suite.RunTestTransformationFailure(t.Context(), t, setup(t)) })
}

// TestPublishedSuiteGet stands alone: its object lives for one second, in
// which its parallel subtests must get their turn.
func TestPublishedSuiteGet(t *testing.T) { suite.RunTestGet(t.Context(), t, setup(t)) }

// TestPublishedSuiteUnsafeDeletes covers objects that cannot be read any more.
func TestPublishedSuiteUnsafeDeletes(t *testing.T) {
	t.Run("ConflictAndMissingExpectedError", func(t *testing.T) {
		c := &breakableCodec{Codec: apitesting.TestCodec(codecs(t), examplev1.SchemeGroupVersion)}
		f := setup(t, func(cfg *storage.Config) { cfg.Codec = c })
		suite.RunTestDeleteWithConflictAndMissingExpectedTransformOrDecodeError(t.Context(), t, f, c.broken.Store)
	})
	t.Run("ExpectedDecodeError", func(t *testing.T) {
		c := &breakableCodec{Codec: apitesting.TestCodec(codecs(t), examplev1.SchemeGroupVersion)}
		f := setup(t, func(cfg *storage.Config) { cfg.Codec = c })
		suite.RunTestDeleteExpectedTransformOrDecodeError(t.Context(), t, f, c.broken.Store)
	})
	t.Run("ExpectedTransformError", func(t *testing.T) {
		b := &breakableTransformer{Transformer: suite.NewPrefixTransformer([]byte(sealPrefix), false)}
		f := setup(t, func(cfg *storage.Config) { cfg.Transformer = storage.Deletable(b) })
		suite.RunTestDeleteExpectedTransformOrDecodeError(t.Context(), t, f, b.broken.Store)
	})
	t.Run("SuggestionAndMissingExpectedError", func(t *testing.T) {
		suite.RunTestDeleteWithSuggestionAndMissingExpectedTransformOrDecodeError(t.Context(), t, setup(t))
	})
	t.Run("WatchWithUnsafeDelete", func(t *testing.T) {
		suite.RunTestWatchWithUnsafeDelete(t.Context(), t, setup(t), &storage.CorruptError{Cause: errors.New("bits flipped")})
	})
	t.Run("GetListWithErrorAggregation", func(t *testing.T) {
		suite.RunTestGetListWithErrorAggregation(t.Context(), t, setup(t), &storage.CorruptError{Cause: errors.New("bits flipped")})
	})
}

// TestPublishedSuiteLists runs the list half.
func TestPublishedSuiteLists(t *testing.T) {
	for name, f := range lists() {
		t.Run(name, run(f))
	}
	t.Run("List", func(t *testing.T) { f := setup(t); suite.RunTestList(t.Context(), t, f, f.compact, false, nil) })
	t.Run("ConsistentList", func(t *testing.T) {
		f := setup(t)
		suite.RunTestConsistentList(t.Context(), t, f, f.increaseRV, false, true, false)
	})
	t.Run("GetListNonRecursive", func(t *testing.T) {
		f := setup(t)
		suite.RunTestGetListNonRecursive(t.Context(), t, f.increaseRV, f)
	})
	// The suite also wants to count the reads of a remote store; here a list
	// is one walk of one view and there is nothing to count.
	calls := func(*testing.T, uint64, uint64) {}
	t.Run("ListContinuation", func(t *testing.T) { suite.RunTestListContinuation(t.Context(), t, setup(t), calls) })
	t.Run("ListPaginationRareObject", func(t *testing.T) { suite.RunTestListPaginationRareObject(t.Context(), t, setup(t), calls) })
	t.Run("ListContinuationWithFilter", func(t *testing.T) {
		suite.RunTestListContinuationWithFilter(t.Context(), t, setup(t), calls)
	})
	t.Run("ListInconsistentContinuation", func(t *testing.T) {
		f := setup(t)
		suite.RunTestListInconsistentContinuation(t.Context(), t, f, f.compact)
	})
	t.Run("ListResourceVersionMatch", func(t *testing.T) { suite.RunTestListResourceVersionMatch(t.Context(), t, setup(t)) })
	t.Run("CompactRevision", func(t *testing.T) {
		f := setup(t)
		suite.RunTestCompactRevision(t.Context(), t, f, f.increaseRV, f.compact)
	})
	for _, sized := range []bool{false, true} {
		t.Run("Stats/sized="+strconv.FormatBool(sized), func(t *testing.T) {
			f := setup(t)
			if sized {
				if err := f.EnableResourceSizeEstimation(nil); err != nil {
					t.Fatal(err)
				}
			}
			suite.RunTestStats(t.Context(), t, f, f.codec, f.prefix, sized)
		})
	}
}

// TestPublishedSuiteWatches runs the watch half, on objects that share their
// encoding as they do in the product.
func TestPublishedSuiteWatches(t *testing.T) {
	for name, f := range watches() {
		t.Run(name, run(f))
	}
	// These two set feature gates and so cannot run beside others.
	t.Run("WatchSemantics", func(t *testing.T) { suite.RunWatchSemantics(t.Context(), t, setup(t)) })
	t.Run("WatchSemanticInitialEvents", func(t *testing.T) {
		suite.RunWatchSemanticInitialEventsExtended(t.Context(), t, setup(t))
	})
	t.Run("WatchFromZero", func(t *testing.T) { f := setup(t); suite.RunTestWatchFromZero(t.Context(), t, f, f.compact) })
	t.Run("WatchError", func(t *testing.T) { suite.RunTestWatchError(t.Context(), t, setup(t)) })
	t.Run("WatchErrorIsBlockingFurtherEvents", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), suiteWait)
		defer cancel()
		suite.RunWatchErrorIsBlockingFurtherEvents(ctx, t, setup(t))
	})
	t.Run("DispatchBookmarkEvents", func(t *testing.T) {
		t.Parallel()
		suite.RunTestWatchDispatchBookmarkEvents(t.Context(), t, setup(t), true)
	})
	t.Run("ProgressNotify", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		suite.RunOptionalTestProgressNotify(t.Context(), t, f, f.increaseRV)
	})
}
