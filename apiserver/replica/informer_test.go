package replica_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/store"
	"skein.dev/skein/apiserver/replica"
	"skein.dev/skein/apiserver/storage/memstore"
)

const prefix = "/registry/configmaps/"

// world is a store of ConfigMaps.
type world struct {
	*memstore.Store

	t *testing.T
}

func newWorld(t *testing.T) world {
	t.Helper()
	return world{memstore.New(), t}
}

func (w world) propose(ops ...store.Op) store.Revision {
	w.t.Helper()
	res, err := w.Propose(w.t.Context(), store.Txn{Ops: ops})
	if err != nil {
		w.t.Fatal(err)
	}
	return res.Revision
}

func (w world) put(name, value string) store.Revision {
	w.t.Helper()
	return w.propose(put(prefix+name, value))
}

func (w world) remove(name string) store.Revision {
	w.t.Helper()
	return w.propose(store.Op{Key: prefix + name, Delete: true})
}

func put(key, value string) store.Op {
	ns, name, _ := strings.Cut(strings.TrimPrefix(key, prefix), "/")
	raw, err := json.Marshal(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Data: map[string]string{"is": value},
	})
	if err != nil {
		panic(err)
	}
	return store.Op{Key: key, Value: raw}
}

func decode(e *store.Entry, rev store.Revision) (runtime.Object, error) {
	var m corev1.ConfigMap
	if err := json.Unmarshal(e.Value, &m); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	m.ResourceVersion = strconv.FormatInt(int64(rev), 10)
	return &m, nil
}

func kind() replica.Kind {
	return replica.Kind{
		Name: "configmaps", Prefix: prefix,
		Each: func(v store.View) iter.Seq[runtime.Object] {
			return func(yield func(runtime.Object) bool) {
				for e := range v.Ascend(prefix, prefix) {
					if m, err := decode(e, e.Mod); err == nil && !yield(m) {
						return
					}
				}
			}
		},
		Told: func(e *store.Event) (runtime.Object, error) {
			if e.Entry == nil {
				return decode(e.Prev, e.Revision)
			}
			return decode(e.Entry, e.Revision)
		},
	}
}

// library is the informer of client-go on the same store, for comparison.
func (w world) library() cache.SharedIndexInformer {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(context.Context, metav1.ListOptions) (runtime.Object, error) {
			view := w.Local()
			list := &corev1.ConfigMapList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.FormatInt(int64(view.Revision()), 10)}}
			for obj := range kind().Each(view) {
				list.Items = append(list.Items, *obj.(*corev1.ConfigMap))
			}
			return list, nil
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			rev, err := strconv.ParseInt(o.ResourceVersion, 10, 64)
			if err != nil {
				return nil, err
			}
			cursor, err := w.Watch(prefix, false, store.Revision(rev))
			if err != nil {
				return nil, err
			}
			out := make(chan watch.Event)
			proxy := watch.NewProxyWatcher(out)
			ctx, cancel := context.WithCancel(ctx)
			context.AfterFunc(ctx, cursor.Close)
			go func() { <-proxy.StopChan(); cancel() }()
			go func() {
				defer close(out)
				for {
					events, _, err := cursor.Next(ctx, true)
					if err != nil {
						return
					}
					for _, e := range events {
						obj, err := kind().Told(e)
						if err != nil {
							return
						}
						typ := watch.Modified
						if e.Entry == nil {
							typ = watch.Deleted
						} else if e.Prev == nil {
							typ = watch.Added
						}
						select {
						case out <- watch.Event{Type: typ, Object: obj}:
						case <-ctx.Done():
							return
						}
					}
				}
			}()
			return proxy, nil
		},
	}
	return cache.NewSharedIndexInformer(noWatchList{lw}, &corev1.ConfigMap{}, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
}

type noWatchList struct{ *cache.ListWatch }

func (noWatchList) IsWatchListSemanticsUnSupported() bool { return true }

// diary is an event handler that writes down what it is told.
type diary struct {
	mu    sync.Mutex // guards the fields below
	lines []string
}

func (d *diary) write(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

func (d *diary) OnAdd(obj any, initial bool) {
	word := "added"
	if initial {
		word = "found"
	}
	d.write("%s %s", word, say(obj))
}
func (d *diary) OnUpdate(old, obj any) { d.write("changed %s to %s", say(old), say(obj)) }
func (d *diary) OnDelete(obj any)      { d.write("deleted %s", say(obj)) }

func say(obj any) string {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		return "unseen " + say(gone.Obj)
	}
	m := obj.(*corev1.ConfigMap)
	return m.Namespace + "/" + m.Name + "=" + m.Data["is"]
}

func (d *diary) read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines)
}

func (d *diary) want(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, func() string { return cmp.Diff(want, d.read()) })
}

// eventually waits until f has nothing to say any more.
func eventually(t *testing.T, f func() string) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for {
		said := f()
		if said == "" {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("after a minute still:", said)
		}
	}
}

// start runs an informer until the test ends.
func start(t *testing.T, in cache.SharedIndexInformer) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var ran sync.WaitGroup
	ran.Go(func() { in.RunWithContext(ctx) })
	stop = func() { cancel(); ran.Wait() }
	t.Cleanup(stop)
	return stop
}

func waitSynced(t *testing.T, in cache.SharedIndexInformer) {
	t.Helper()
	eventually(t, func() string {
		if in.HasSynced() {
			return ""
		}
		return "not synced"
	})
}

// thinKind is kind read from entries when it is asked for.
func thinKind() replica.Kind {
	k := kind()
	k.Each = nil
	k.Read = func(e *store.Entry) (runtime.Object, error) { return decode(e, e.Mod) }
	return k
}

// both runs a test with the library's informer and with ours, that which holds
// objects and that which does not.
func both(t *testing.T, f func(t *testing.T, w world, in cache.SharedIndexInformer)) {
	t.Helper()
	t.Parallel()
	for _, name := range []string{"library", "replica", "thin replica"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			in := w.library()
			switch name {
			case "replica":
				in = replica.NewHub(w, "/registry/", nil).Informer(kind())
			case "thin replica":
				in = replica.NewHub(w, "/registry/", nil).Informer(thinKind())
			}
			f(t, w, in)
		})
	}
}

func add(t *testing.T, in cache.SharedIndexInformer) (*diary, cache.ResourceEventHandlerRegistration) {
	t.Helper()
	d := &diary{}
	r, err := in.AddEventHandler(d)
	if err != nil {
		t.Fatal(err)
	}
	return d, r
}

func TestAHandlerIsToldWhatIsThereAndWhatHappens(t *testing.T) {
	both(t, func(t *testing.T, w world, in cache.SharedIndexInformer) {
		t.Helper()
		w.put("a/x", "1")
		d, r := add(t, in)
		if in.HasSynced() || r.HasSynced() {
			t.Fatal("synced before it ran")
		}
		start(t, in)
		d.want(t, "found a/x=1")
		<-r.HasSyncedChecker().Done()
		waitSynced(t, in)
		w.put("a/x", "2")
		w.put("b/y", "1")
		w.remove("a/x")
		w.put("a/x", "3")
		d.want(t, "found a/x=1", "changed a/x=1 to a/x=2", "added b/y=1", "deleted a/x=2", "added a/x=3")
	})
}

func TestALateHandlerIsToldWhatIsThere(t *testing.T) {
	both(t, func(t *testing.T, w world, in cache.SharedIndexInformer) {
		t.Helper()
		w.put("a/x", "1")
		start(t, in)
		waitSynced(t, in)
		d, r := add(t, in)
		<-r.HasSyncedChecker().Done()
		w.put("a/x", "2")
		d.want(t, "found a/x=1", "changed a/x=1 to a/x=2")
	})
}

func TestARemovedHandlerIsToldNothingMore(t *testing.T) {
	both(t, func(t *testing.T, w world, in cache.SharedIndexInformer) {
		t.Helper()
		start(t, in)
		waitSynced(t, in)
		gone, r := add(t, in)
		stays, _ := add(t, in)
		w.put("a/x", "1")
		gone.want(t, "added a/x=1")
		if err := in.RemoveEventHandler(r); err != nil {
			t.Fatal(err)
		}
		w.put("a/x", "2")
		stays.want(t, "added a/x=1", "changed a/x=1 to a/x=2")
		gone.want(t, "added a/x=1")
	})
}

func TestAnInformerThatHasStoppedTakesNoHandlers(t *testing.T) {
	both(t, func(t *testing.T, w world, in cache.SharedIndexInformer) {
		t.Helper()
		w.put("a/x", "1")
		stop := start(t, in)
		waitSynced(t, in)
		d, _ := add(t, in)
		d.want(t, "found a/x=1")
		stop()
		w.put("a/x", "2")
		if !in.IsStopped() {
			t.Error("it says that it goes on")
		}
		if _, err := in.AddEventHandler(&diary{}); err == nil {
			t.Error("a handler was taken")
		}
		d.want(t, "found a/x=1")
	})
}

func TestObjectsAreFoundByIndex(t *testing.T) {
	both(t, func(t *testing.T, w world, in cache.SharedIndexInformer) {
		t.Helper()
		w.put("a/x", "red")
		w.put("b/y", "red")
		if err := in.AddIndexers(cache.Indexers{"colour": func(obj any) ([]string, error) {
			return []string{obj.(*corev1.ConfigMap).Data["is"]}, nil
		}}); err != nil {
			t.Fatal(err)
		}
		start(t, in)
		waitSynced(t, in)
		w.put("b/y", "blue")
		w.put("b/z", "blue")
		eventually(t, func() string {
			var got []string
			for _, obj := range must(in.GetIndexer().ByIndex("colour", "blue")) {
				got = append(got, say(obj))
			}
			slices.Sort(got)
			return cmp.Diff([]string{"b/y=blue", "b/z=blue"}, got)
		})
		if got := must(in.GetIndexer().ByIndex(cache.NamespaceIndex, "a")); len(got) != 1 {
			t.Errorf("namespace a has %d objects, want 1", len(got))
		}
	})
}

func TestATransformSeesObjectsBeforeReaders(t *testing.T) {
	both(t, func(t *testing.T, w world, in cache.SharedIndexInformer) {
		t.Helper()
		w.put("a/x", "1")
		if err := in.SetTransform(func(obj any) (any, error) {
			if m, ok := obj.(*corev1.ConfigMap); ok {
				m = m.DeepCopy()
				m.Data["is"] += "!"
				return m, nil
			}
			return obj, nil
		}); err != nil {
			t.Fatal(err)
		}
		d, _ := add(t, in)
		start(t, in)
		d.want(t, "found a/x=1!")
		w.put("a/x", "2")
		d.want(t, "found a/x=1!", "changed a/x=1! to a/x=2!")
		if err := in.SetTransform(nil); err == nil {
			t.Error("a transform was changed while the informer ran")
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
