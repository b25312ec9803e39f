package gc

import (
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// object is what the graph keeps of an API object.
type object struct {
	gvr       schema.GroupVersionResource
	namespace string
	name      string
	uid       types.UID
	owners    []metav1.OwnerReference
	deleting  bool
	orphans   bool // waits for us to let its dependents go
	waits     bool // waits for us to delete its dependents first
}

// graph is who owns whom. All methods are safe for concurrent use.
type graph struct {
	mu      sync.Mutex // guards the fields below
	objects map[types.UID]*object
	owned   map[types.UID]map[types.UID]struct{} // dependents by owner, who may be unknown
}

func newGraph() *graph {
	return &graph{objects: map[types.UID]*object{}, owned: map[types.UID]map[types.UID]struct{}{}}
}

func (g *graph) get(uid types.UID) *object {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.objects[uid]
}

// dependents are the known objects that name uid as an owner.
func (g *graph) dependents(uid types.UID) []*object {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]*object, 0, len(g.owned[uid]))
	for d := range g.owned[uid] {
		if o := g.objects[d]; o != nil {
			out = append(out, o)
		}
	}
	return out
}

// set stores o and returns whom to look at because of it.
func (g *graph) set(o *object) []types.UID {
	g.mu.Lock()
	defer g.mu.Unlock()
	was := g.objects[o.uid]
	g.objects[o.uid] = o
	var look []types.UID
	if was != nil {
		for _, ref := range was.owners {
			if !slices.ContainsFunc(o.owners, func(r metav1.OwnerReference) bool { return r.UID == ref.UID }) {
				look = append(look, g.unlink(ref.UID, o.uid)...)
			}
		}
	}
	suspect := o.orphans || o.waits
	for _, ref := range o.owners {
		if g.owned[ref.UID] == nil {
			g.owned[ref.UID] = map[types.UID]struct{}{}
		}
		g.owned[ref.UID][o.uid] = struct{}{}
		owner := g.objects[ref.UID]
		suspect = suspect || owner == nil || owner.waits || misplaced(owner, o)
		if owner != nil && owner.waits { // it may block its owner no more
			look = append(look, ref.UID)
		}
	}
	if suspect {
		look = append(look, o.uid)
	}
	if o.waits && (was == nil || !was.waits) {
		for d := range g.owned[o.uid] {
			look = append(look, d)
		}
	}
	return look
}

// misplaced: a namespaced owner owns only within its namespace.
func misplaced(owner, o *object) bool {
	return owner.namespace != "" && owner.namespace != o.namespace
}

// drop forgets an object and returns whom to look at because of it.
func (g *graph) drop(uid types.UID) []types.UID {
	g.mu.Lock()
	defer g.mu.Unlock()
	o := g.objects[uid]
	if o == nil {
		return nil
	}
	delete(g.objects, uid)
	var look []types.UID
	for _, ref := range o.owners {
		look = append(look, g.unlink(ref.UID, uid)...)
	}
	for d := range g.owned[uid] {
		look = append(look, d)
	}
	return look
}

// unlink ends an ownership; an owner that waits for its dependents is to be
// looked at.
func (g *graph) unlink(owner, dependent types.UID) []types.UID {
	delete(g.owned[owner], dependent)
	if len(g.owned[owner]) == 0 {
		delete(g.owned, owner)
	}
	if o := g.objects[owner]; o != nil && o.waits {
		return []types.UID{owner}
	}
	return nil
}

// blockers are the dependents that hold up a foreground deletion.
func blockers(owner types.UID, dependents []*object) []*object {
	var out []*object
	for _, d := range dependents {
		for _, ref := range d.owners {
			if ref.UID == owner && ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion {
				out = append(out, d)
				break
			}
		}
	}
	return out
}

// convert keeps what the graph needs of an object's metadata.
func convert(gvr schema.GroupVersionResource, m *metav1.PartialObjectMetadata) *object {
	deleting := m.DeletionTimestamp != nil
	return &object{
		gvr: gvr, namespace: m.Namespace, name: m.Name, uid: m.UID, owners: m.OwnerReferences, deleting: deleting,
		orphans: deleting && slices.Contains(m.Finalizers, metav1.FinalizerOrphanDependents),
		waits:   deleting && slices.Contains(m.Finalizers, metav1.FinalizerDeleteDependents),
	}
}
