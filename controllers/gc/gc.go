// Package gc deletes what its owners left behind, and carries out foreground
// and orphaning deletions.
//
// Its invariant: an object is deleted only after the API itself, not a cache,
// said that every owner is absent or waits for it to go.
package gc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/run"
)

type keyUID = types.UID

// Controller reconciles objects of every kind by their UID.
type Controller struct {
	kit      component.Kit
	metadata metadata.Interface
	monitor  func(schema.GroupVersionResource) cache.SharedIndexInformer // may be nil

	mu     sync.Mutex // guards the fields below
	graph  *graph
	kinds  map[schema.GroupKind]kind
	absent map[reference]bool // owners that the API said do not exist: UIDs never return
	ready  bool               // the graph has seen everything once
}

// reference is an owner as a dependent names it. That there is none under a
// wrong name says nothing about the owner that has the UID.
type reference struct {
	kind            schema.GroupKind
	namespace, name string
	uid             types.UID
}

// maxAbsent bounds the memory of absent owners.
const maxAbsent = 5000

// New makes the collector; md reaches the objects of every kind. monitor may
// give cheaper informers of their metadata than watches of md, for some kinds
// or, if it is nil, for none.
func New(kit component.Kit, md metadata.Interface, monitor func(schema.GroupVersionResource) cache.SharedIndexInformer) (run.Controller, error) {
	if md == nil {
		return run.Controller{}, errors.New("garbage collector: a metadata client is required")
	}
	c := &Controller{kit: kit, metadata: md, monitor: monitor}
	c.reset()
	return run.Controller{
		Name:      "garbage-collector-controller",
		Writes:    []string{"*.*"},
		Workers:   8,
		Reconcile: c.reconcile,
		Feed:      c.feed,
		Reset:     c.reset,
	}, nil
}

func (c *Controller) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.graph, c.kinds, c.absent, c.ready = newGraph(), nil, map[reference]bool{}, false
}

func (c *Controller) open() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ready = true
}

func (c *Controller) isOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	if !c.isOpen() || (c.kit.Settled != nil && !c.kit.Settled()) {
		return time.Second / 4, nil
	}
	o := c.graph.get(types.UID(key.Name))
	if o == nil {
		return 0, nil
	}
	live, err := c.metadata.Resource(o.gvr).Namespace(o.namespace).Get(ctx, o.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || (err == nil && live.UID != o.uid) {
		return 0, nil // its deletion is on its way to the graph
	}
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", o, err)
	}
	now := convert(o.gvr, live)
	switch {
	case now.orphans:
		return 0, c.orphan(ctx, now, live)
	case now.waits:
		return c.deleteDependents(ctx, now, live)
	case now.deleting || len(now.owners) == 0:
		return 0, nil
	}
	err = c.judge(ctx, now, live)
	if errors.Is(err, errUnserved) {
		c.kit.Log.DebugContext(ctx, "owner cannot be judged", "err", err)
		return 5 * time.Minute, nil
	}
	return 0, err
}

// errUnserved: the kind of an owner is not served, now.
var errUnserved = errors.New("kind is not served")

// judge looks at the owners of o, one by one and live.
func (c *Controller) judge(ctx context.Context, o *object, live *metav1.PartialObjectMetadata) error {
	var solid, waiting, dangling []metav1.OwnerReference
	for _, ref := range o.owners {
		state, err := c.owner(ctx, o, ref)
		if err != nil {
			return err
		}
		switch state {
		case isSolid:
			solid = append(solid, ref)
		case isWaiting:
			waiting = append(waiting, ref)
		case isAbsent:
			dangling = append(dangling, ref)
		}
	}
	switch {
	case len(solid) > 0 && len(waiting)+len(dangling) == 0:
		return nil
	case len(solid) > 0:
		return c.removeOwners(ctx, o, append(waiting, dangling...))
	case len(waiting) > 0 && len(c.graph.dependents(o.uid)) > 0:
		// The owner is deleted in the foreground, so its dependents are too,
		// unless one of ours waits for us in turn: that would be a circle.
		for _, d := range c.graph.dependents(o.uid) {
			if d.waits {
				if err := c.unblock(ctx, o, live); err != nil {
					return err
				}
				break
			}
		}
		return c.delete(ctx, live, o, metav1.DeletePropagationForeground)
	}
	policy := metav1.DeletePropagationBackground
	for _, f := range live.Finalizers {
		switch f {
		case metav1.FinalizerOrphanDependents:
			policy = metav1.DeletePropagationOrphan
		case metav1.FinalizerDeleteDependents:
			policy = metav1.DeletePropagationForeground
		}
	}
	return c.delete(ctx, live, o, policy)
}

type ownerState int

const (
	isSolid ownerState = iota
	isWaiting
	isAbsent
)

// owner asks the API about one owner of o.
func (c *Controller) owner(ctx context.Context, o *object, ref metav1.OwnerReference) (ownerState, error) {
	gv, perr := schema.ParseGroupVersion(ref.APIVersion)
	gk := gv.WithKind(ref.Kind).GroupKind()
	c.mu.Lock()
	k, known := c.kinds[gk]
	c.mu.Unlock()
	if perr != nil || !known {
		// Nobody can say whether it exists: then it counts as existing.
		return isSolid, fmt.Errorf("%w: %s %s, owner of %s", errUnserved, ref.APIVersion, ref.Kind, o)
	}
	if k.namespaced && o.namespace == "" {
		c.kit.Log.WarnContext(ctx, "cluster-scoped object names a namespaced owner", "object", o.String(), "owner", ref.Kind+" "+ref.Name)
		return isSolid, nil
	}
	ns := ""
	if k.namespaced {
		ns = o.namespace
	}
	named := reference{gk, ns, ref.Name, ref.UID}
	c.mu.Lock()
	gone := c.absent[named]
	c.mu.Unlock()
	if gone {
		return isAbsent, nil
	}
	live, err := c.metadata.Resource(k.gvr).Namespace(ns).Get(ctx, ref.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) || (err == nil && live.UID != ref.UID):
		c.mu.Lock()
		if len(c.absent) >= maxAbsent {
			clear(c.absent)
		}
		c.absent[named] = true
		c.mu.Unlock()
		return isAbsent, nil
	case err != nil:
		return isSolid, fmt.Errorf("read owner %s %s of %s: %w", ref.Kind, ref.Name, o, err)
	case convert(k.gvr, live).waits:
		return isWaiting, nil
	}
	return isSolid, nil
}

// String names the object in logs and errors.
func (o *object) String() string {
	return fmt.Sprintf("%s %s/%s", o.gvr.GroupResource(), o.namespace, o.name)
}
