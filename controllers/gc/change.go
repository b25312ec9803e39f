package gc

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// delete removes o if it is still as it was judged.
func (c *Controller) delete(ctx context.Context, live *metav1.PartialObjectMetadata, o *object, policy metav1.DeletionPropagation) error {
	err := c.metadata.Resource(o.gvr).Namespace(o.namespace).Delete(ctx, o.name, metav1.DeleteOptions{
		PropagationPolicy: &policy,
		Preconditions:     &metav1.Preconditions{UID: &live.UID, ResourceVersion: version(live)},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return wrap(err, "delete", o)
	}
	return nil
}

// version is nil where there is none: an empty precondition never holds.
func version(live *metav1.PartialObjectMetadata) *string {
	if live.ResourceVersion == "" {
		return nil
	}
	return &live.ResourceVersion
}

// wrap keeps conflicts recognizable to the loop, which stays silent on them.
func wrap(err error, verb string, o *object) error {
	if apierrors.IsConflict(err) {
		return err
	}
	return fmt.Errorf("%s %s: %w", verb, o, err)
}

// removeOwners takes references off o, whose other owners keep it.
func (c *Controller) removeOwners(ctx context.Context, o *object, refs []metav1.OwnerReference) error {
	return c.patchOwners(ctx, o, func(have []metav1.OwnerReference) []metav1.OwnerReference {
		return slices.DeleteFunc(have, func(r metav1.OwnerReference) bool {
			return slices.ContainsFunc(refs, func(x metav1.OwnerReference) bool { return x.UID == r.UID })
		})
	})
}

// unblock stops o from holding up the deletion of its owners.
func (c *Controller) unblock(ctx context.Context, o *object, live *metav1.PartialObjectMetadata) error {
	err := c.patchOwners(ctx, o, func(have []metav1.OwnerReference) []metav1.OwnerReference {
		for i := range have {
			have[i].BlockOwnerDeletion = new(bool)
		}
		return have
	})
	// The patch moved the version that the deletion is to be judged by.
	live.ResourceVersion = ""
	return err
}

// patchOwners edits the references of the live object: what the graph knows
// of them may be old.
func (c *Controller) patchOwners(ctx context.Context, o *object, edit func([]metav1.OwnerReference) []metav1.OwnerReference) error {
	client := c.metadata.Resource(o.gvr).Namespace(o.namespace)
	live, err := client.Get(ctx, o.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || (err == nil && live.UID != o.uid) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", o, err)
	}
	meta := map[string]any{"uid": o.uid, "ownerReferences": edit(slices.Clone(live.OwnerReferences))}
	if v := version(live); v != nil {
		meta["resourceVersion"] = *v
	}
	b, err := json.Marshal(map[string]any{"metadata": meta})
	if err != nil {
		return fmt.Errorf("encode owners: %w", err)
	}
	_, err = client.Patch(ctx, o.name, types.MergePatchType, b, metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return wrap(err, "change owners of", o)
	}
	return nil
}

// orphan lets the dependents of o go and then o itself.
func (c *Controller) orphan(ctx context.Context, o *object, live *metav1.PartialObjectMetadata) error {
	for _, d := range c.graph.dependents(o.uid) {
		if err := c.removeOwners(ctx, d, []metav1.OwnerReference{{UID: o.uid}}); err != nil {
			return err
		}
	}
	return c.removeFinalizer(ctx, o, live, metav1.FinalizerOrphanDependents)
}

// deleteDependents is one step of a foreground deletion.
func (c *Controller) deleteDependents(ctx context.Context, o *object, live *metav1.PartialObjectMetadata) (time.Duration, error) {
	all := c.graph.dependents(o.uid)
	if len(blockers(o.uid, all)) == 0 {
		return 0, c.removeFinalizer(ctx, o, live, metav1.FinalizerDeleteDependents)
	}
	for _, d := range all {
		if d.deleting {
			continue
		}
		dlive, err := c.metadata.Resource(d.gvr).Namespace(d.namespace).Get(ctx, d.name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || (err == nil && (dlive.UID != d.uid || dlive.DeletionTimestamp != nil)) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", d, err)
		}
		if err := c.judge(ctx, convert(d.gvr, dlive), dlive); err != nil {
			return 0, err
		}
	}
	return 5 * time.Second, nil // the last dependent's end wakes us; this is for one that we miss
}

func (c *Controller) removeFinalizer(ctx context.Context, o *object, live *metav1.PartialObjectMetadata, name string) error {
	left := slices.DeleteFunc(slices.Clone(live.Finalizers), func(f string) bool { return f == name })
	meta := map[string]any{"uid": o.uid, "finalizers": left}
	if v := version(live); v != nil {
		meta["resourceVersion"] = *v
	}
	b, err := json.Marshal(map[string]any{"metadata": meta})
	if err != nil {
		return fmt.Errorf("encode finalizers: %w", err)
	}
	_, err = c.metadata.Resource(o.gvr).Namespace(o.namespace).Patch(ctx, o.name, types.MergePatchType, b, metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return wrap(err, "remove finalizer of", o)
	}
	return nil
}
