package replica_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/store"
	"skein.dev/skein/apiserver/replica"
)

// torn is a store whose watches can be made to end as they do when a replica
// is replaced by a snapshot.
type torn struct {
	world

	mu    sync.Mutex // guards the field below
	watch []context.CancelCauseFunc
}

type tornWatch struct {
	store.Watch

	life context.Context //nolint:containedctx // the watch's own
}

func (s *torn) Watch(prefix string, exact bool, rev store.Revision) (store.Watch, error) {
	w, err := s.world.Watch(prefix, exact, rev)
	if err != nil {
		return nil, err
	}
	life, end := context.WithCancelCause(s.t.Context())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch = append(s.watch, end)
	return tornWatch{w, life}, nil
}

func (w tornWatch) Next(ctx context.Context, wait bool) ([]*store.Event, store.Revision, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.life, cancel)()
	if w.life.Err() != nil {
		return nil, 0, context.Cause(w.life)
	}
	events, through, err := w.Watch.Next(ctx, wait)
	if cause := context.Cause(w.life); cause != nil {
		return nil, 0, cause
	}
	return events, through, err
}

// tear ends all watches with err after change has been made.
func (s *torn) tear(err error, change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	for _, end := range s.watch {
		end(err)
	}
	s.watch = nil
}

func TestAReplicaThatWasReplacedIsShownAsADifference(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		err  error
		kind replica.Kind
	}{
		"by a snapshot":                  {store.ErrCompacted, kind()},
		"after a failure":                {errors.New("disk on fire"), kind()},
		"by a snapshot, no objects held": {store.ErrCompacted, thinKind()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &torn{world: newWorld(t)}
			s.put("a/stays", "1")
			s.put("a/changes", "1")
			s.put("a/goes", "1")
			in := replica.NewHub(s, "/registry/", nil).Informer(row.kind)
			start(t, in)
			waitSynced(t, in)
			d, _ := add(t, in)
			eventually(t, func() string {
				if n := len(d.read()); n != 3 {
					return strconv.Itoa(n) + " objects found, want 3"
				}
				return ""
			})
			found := d.read()
			s.tear(row.err, func() {
				s.propose(
					store.Op{Key: prefix + "a/goes", Delete: true},
					put(prefix+"a/changes", "2"), put(prefix+"a/comes", "1"),
				)
			})
			s.put("a/later", "1")
			eventually(t, func() string {
				have := map[string]bool{}
				for _, line := range d.read() {
					have[line] = true
				}
				for _, line := range []string{"changed a/changes=1 to a/changes=2", "added a/comes=1", "added a/later=1"} {
					if !have[line] {
						return "not told: " + line
					}
				}
				if !have["deleted a/goes=1"] && !have["deleted unseen a/goes=1"] {
					return "not told that a/goes is gone"
				}
				return ""
			})
			if got, want := len(d.read()), len(found)+4; got != want {
				t.Errorf("told %d things, want %d: %q", got, want, d.read())
			}
		})
	}
}

func TestChangesOfOneTransactionAreAllTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := replica.NewHub(w, "/registry/", nil).Informer(kind())
	d, _ := add(t, in)
	start(t, in)
	waitSynced(t, in)
	w.propose(put(prefix+"a/x", "1"), put(prefix+"a/y", "1"), put("/registry/secrets/a/z", "1"), put("/registry/configmaps.d/a/z", "1"))
	d.want(t, "added a/x=1", "added a/y=1")
}

func TestAnInformerShowsHowFarTheStoreHasCome(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hub := replica.NewHub(w, "/registry/", nil)
	in := hub.Informer(kind())
	if got := in.LastSyncResourceVersion(); got != "" {
		t.Errorf("version %q before it ran", got)
	}
	start(t, in)
	waitSynced(t, in)
	rev := w.propose(put("/registry/secrets/a/z", "1")) // of another kind
	eventually(t, func() string {
		got, err := strconv.ParseInt(in.GetIndexer().LastStoreSyncResourceVersion(), 10, 64)
		if err == nil && got >= int64(rev) {
			return ""
		}
		return "it shows " + strconv.FormatInt(got, 10)
	})
}

func TestAnObjectThatCannotBeReadIsGone(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]replica.Kind{"whole": kind(), "thin": thinKind()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.put("a/x", "1")
			in := replica.NewHub(w, "/registry/", nil).Informer(kind)
			d, _ := add(t, in)
			start(t, in)
			d.want(t, "found a/x=1")
			w.propose(store.Op{Key: prefix + "a/x", Value: []byte("{")})
			w.put("a/y", "1")
			w.put("a/x", "2")
			d.want(t, "found a/x=1", "deleted unseen a/x=1", "added a/y=1", "added a/x=2")
		})
	}
}

func TestAThinInformerReadsWhatItIsAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put("a/x", "1")
	w.put("b/y", "1")
	kind := thinKind()
	var reads atomic.Int64
	kind.Read = func(e *store.Entry) (runtime.Object, error) {
		reads.Add(1)
		return decode(e, e.Mod)
	}
	in := replica.NewHub(w, "/registry/", nil).Informer(kind)
	start(t, in)
	waitSynced(t, in)
	before := reads.Load()
	index := in.GetIndexer()
	if got := must(index.IndexKeys(cache.NamespaceIndex, "b")); !slices.Equal(got, []string{"b/y"}) {
		t.Errorf("keys in b: %q", got)
	}
	if n := reads.Load() - before; n != 0 {
		t.Errorf("%d objects were read to count keys", n)
	}
	obj, ok, err := index.GetByKey("b/y")
	if err != nil || !ok || say(obj) != "b/y=1" {
		t.Errorf("b/y: got %v, %v, %v", obj, ok, err)
	}
	if n := reads.Load() - before; n != 1 {
		t.Errorf("%d objects were read to show one", n)
	}
	if err := index.Add(obj); err == nil {
		t.Error("somebody else put an object into the index")
	}
	w.remove("b/y")
	eventually(t, func() string {
		if got := index.ListKeys(); !slices.Equal(got, []string{"a/x"}) {
			return "keys: " + strings.Join(got, " ")
		}
		return ""
	})
}

func TestTheReaderEndsWithTheLastInformerAndComesAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hub := replica.NewHub(w, "/registry/", nil)
	for i := range 20 {
		var group sync.WaitGroup
		for range 3 {
			in := hub.Informer(kind())
			group.Go(func() {
				stop := start(t, in)
				defer stop()
				cache.WaitForCacheSync(t.Context().Done(), in.HasSynced)
			})
		}
		w.put("a/x", strconv.Itoa(i))
		group.Wait()
	}
	in := hub.Informer(kind())
	d, _ := add(t, in)
	start(t, in)
	d.want(t, "found a/x=19")
	w.remove("a/x")
	d.want(t, "found a/x=19", "deleted a/x=19")
}

func TestASlowHandlerHoldsUpNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := replica.NewHub(w, "/registry/", nil).Informer(kind())
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	if _, err := in.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) { <-release }}); err != nil {
		t.Fatal(err)
	}
	d, _ := add(t, in)
	start(t, in)
	t.Cleanup(free) // before the informer is stopped, which waits for the handler
	waitSynced(t, in)
	w.put("a/x", "1")
	w.put("a/y", "1")
	d.want(t, "added a/x=1", "added a/y=1")
}
