package gc

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/controllers/run"
)

// rediscover is how often new kinds are looked for.
const rediscover = 30 * time.Second

// monitors follow the metadata of every kind while the controller runs.
type monitors struct {
	c    *Controller
	add  func(run.Key)
	wg   sync.WaitGroup
	runs map[schema.GroupVersionResource]*monitor
}

type monitor struct {
	cancel context.CancelFunc
	synced cache.ResourceEventHandlerRegistration
}

// feed keeps the graph up to date until ctx ends.
func (c *Controller) feed(ctx context.Context, add func(run.Key)) error {
	m := &monitors{c: c, add: add, runs: map[schema.GroupVersionResource]*monitor{}}
	defer m.wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tick := time.NewTicker(rediscover)
	defer tick.Stop()
	for {
		if err := m.sync(ctx); err != nil {
			c.kit.Log.WarnContext(ctx, "discovering kinds to collect failed", "err", err)
		}
		if m.wait(ctx) {
			c.open()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// sync starts monitors for new kinds and ends those of kinds that are gone. A
// group that cannot be discovered now keeps the monitors it has.
func (m *monitors) sync(ctx context.Context) error {
	kinds, whole, err := m.c.discover()
	if len(kinds) == 0 {
		return err
	}
	want := map[schema.GroupVersionResource]bool{}
	for gk, k := range kinds {
		if k.collectable && !ignored(gk) {
			want[k.gvr] = true
		}
	}
	for gvr, mon := range m.runs {
		if !want[gvr] && whole {
			mon.cancel()
			delete(m.runs, gvr)
		}
	}
	for gvr := range want {
		if m.runs[gvr] == nil {
			if serr := m.start(ctx, gvr); serr != nil {
				return serr
			}
		}
	}
	return err
}

func (m *monitors) start(ctx context.Context, gvr schema.GroupVersionResource) error {
	inf := m.c.informer(gvr)
	if err := inf.SetTransform(strip); err != nil {
		return fmt.Errorf("monitor %s: %w", gvr.GroupResource(), err)
	}
	set := func(obj any) {
		if o, ok := obj.(*metav1.PartialObjectMetadata); ok {
			m.look(m.c.graph.set(convert(gvr, o)))
		}
	}
	reg, err := inf.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: set,
		UpdateFunc: func(before, after any) {
			a, ok := before.(*metav1.PartialObjectMetadata)
			b, ok2 := after.(*metav1.PartialObjectMetadata)
			if ok && ok2 && a.UID != b.UID {
				m.look(m.c.graph.drop(a.UID))
			}
			set(after)
		},
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			if o, ok := obj.(*metav1.PartialObjectMetadata); ok {
				m.look(m.c.graph.drop(o.UID))
			}
		},
	})
	if err != nil {
		return fmt.Errorf("monitor %s: %w", gvr.GroupResource(), err)
	}
	ctx, cancel := context.WithCancel(ctx)
	m.runs[gvr] = &monitor{cancel: cancel, synced: reg}
	m.wg.Go(func() { inf.RunWithContext(ctx) })
	return nil
}

// informer is of the metadata of one kind.
func (c *Controller) informer(gvr schema.GroupVersionResource) cache.SharedIndexInformer {
	if c.monitor != nil {
		if inf := c.monitor(gvr); inf != nil {
			return inf
		}
	}
	return metadatainformer.NewFilteredMetadataInformer(c.metadata, gvr, metav1.NamespaceAll, 0, cache.Indexers{}, nil).Informer()
}

func (m *monitors) look(uids []keyUID) {
	for _, uid := range uids {
		m.add(run.Key{Name: string(uid)})
	}
}

// wait blocks until all monitors have delivered what exists; a kind that
// cannot be listed is not waited for longer than ten seconds.
func (m *monitors) wait(ctx context.Context) bool {
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	for _, mon := range m.runs {
		select {
		case <-mon.synced.HasSyncedChecker().Done():
		case <-limit.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
	return len(m.runs) > 0
}

// strip drops what the graph does not need before it is stored.
func strip(obj any) (any, error) {
	if m, ok := obj.(*metav1.PartialObjectMetadata); ok {
		m.ManagedFields, m.Labels, m.Annotations = nil, nil, nil
	}
	return obj, nil
}

// ignored kinds own nothing, are owned by nothing, and change all the time.
func ignored(gk schema.GroupKind) bool {
	return gk.Kind == "Event" && (gk.Group == "" || gk.Group == "events.k8s.io")
}

// kind is where objects of a kind are found.
type kind struct {
	gvr         schema.GroupVersionResource
	namespaced  bool
	collectable bool // can be listed, watched and deleted
}

// discover reads what kinds there are and remembers it for owner lookups;
// whole is false when some groups could not be asked.
func (c *Controller) discover() (kinds map[schema.GroupKind]kind, whole bool, err error) {
	lists, err := discovery.ServerPreferredResources(c.kit.Client.Discovery())
	kinds = map[schema.GroupKind]kind{}
	for _, l := range lists {
		gv, perr := schema.ParseGroupVersion(l.GroupVersion)
		if perr != nil {
			continue
		}
		for _, r := range l.APIResources {
			gk := gv.WithKind(r.Kind).GroupKind()
			if _, dup := kinds[gk]; dup {
				continue
			}
			ok := slices.Contains(r.Verbs, "list") && slices.Contains(r.Verbs, "watch") && slices.Contains(r.Verbs, "delete")
			if !ok && !slices.Contains(r.Verbs, "get") {
				continue
			}
			kinds[gk] = kind{gvr: gv.WithResource(r.Name), namespaced: r.Namespaced, collectable: ok}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kinds == nil {
		c.kinds = map[schema.GroupKind]kind{}
	}
	maps.Copy(c.kinds, kinds)
	if err != nil {
		return kinds, false, fmt.Errorf("discover: %w", err)
	}
	c.kinds = kinds
	return kinds, true, nil
}
