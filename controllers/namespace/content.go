package namespace

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Rest is what is left of a namespace after one pass over it.
type Rest struct {
	Discovery  error          // some kinds could not be found
	Delete     error          // some objects could not be deleted or listed
	Objects    map[string]int // by kind
	Finalizers map[string]int // by finalizer
}

func (r Rest) clean() bool { return r.Discovery == nil && r.Delete == nil && len(r.Objects) == 0 }

// empty deletes everything in a namespace, pods first and alone: what they
// use and what guards them (network policies, secrets) stays as long as any
// of them may run.
func (c *Controller) empty(ctx context.Context, ns string) Rest {
	rest := Rest{Objects: map[string]int{}, Finalizers: map[string]int{}}
	podKind := corev1.SchemeGroupVersion.WithResource("pods")
	c.purge(ctx, ns, podKind, &rest)
	if len(rest.Objects) > 0 || rest.Delete != nil {
		return rest
	}
	all, err := c.kinds()
	rest.Discovery = err
	for _, gvr := range all {
		if gvr.GroupResource() == podKind.GroupResource() {
			continue
		}
		c.purge(ctx, ns, gvr, &rest)
	}
	return rest
}

// purge deletes the objects of one kind and counts what remains.
func (c *Controller) purge(ctx context.Context, ns string, gvr schema.GroupVersionResource, rest *Rest) {
	client := c.metadata.Resource(gvr).Namespace(ns)
	list, err := client.List(ctx, metav1.ListOptions{})
	if ignorable(err) || (err == nil && len(list.Items) == 0) {
		return
	}
	if err != nil {
		rest.Delete = errors.Join(rest.Delete, fmt.Errorf("list %s: %w", gvr.GroupResource(), err))
		return
	}
	policy := metav1.DeletePropagationBackground
	err = client.DeleteCollection(ctx, metav1.DeleteOptions{PropagationPolicy: &policy}, metav1.ListOptions{})
	if apierrors.IsMethodNotSupported(err) {
		err = c.oneByOne(ctx, ns, gvr, list)
	}
	if err != nil && !ignorable(err) {
		rest.Delete = errors.Join(rest.Delete, fmt.Errorf("delete %s: %w", gvr.GroupResource(), err))
	}
	list, err = client.List(ctx, metav1.ListOptions{})
	if err != nil {
		if !ignorable(err) {
			rest.Delete = errors.Join(rest.Delete, fmt.Errorf("list %s: %w", gvr.GroupResource(), err))
		}
		return
	}
	for _, o := range list.Items {
		rest.Objects[gvr.Resource+"."+gvr.Group]++ // upstream's form, dot and all
		for _, f := range o.Finalizers {
			rest.Finalizers[f]++
		}
	}
}

func (c *Controller) oneByOne(ctx context.Context, ns string, gvr schema.GroupVersionResource, list *metav1.PartialObjectMetadataList) error {
	policy := metav1.DeletePropagationBackground
	for _, o := range list.Items {
		err := c.metadata.Resource(gvr).Namespace(ns).Delete(ctx, o.Name, metav1.DeleteOptions{PropagationPolicy: &policy})
		if err != nil && !ignorable(err) {
			return fmt.Errorf("%s: %w", o.Name, err)
		}
	}
	return nil
}

// ignorable: the kind or the object is not there (any more), or cannot be
// listed at all.
func ignorable(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err)
}

// Conditions tells in upstream's words how far a deletion is.
func Conditions(have []corev1.NamespaceCondition, rest Rest, now metav1.Time) []corev1.NamespaceCondition {
	out := slices.Clone(have)
	set := func(t corev1.NamespaceConditionType, failed bool, badReason, badMessage, goodReason, goodMessage string) {
		c := corev1.NamespaceCondition{Type: t, Status: corev1.ConditionFalse, Reason: goodReason, Message: goodMessage, LastTransitionTime: now}
		if failed {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, badReason, badMessage
		}
		for i := range out {
			if out[i].Type != t {
				continue
			}
			if out[i].Status == c.Status {
				c.LastTransitionTime = out[i].LastTransitionTime
			}
			out[i] = c
			return
		}
		out = append(out, c)
	}
	set(corev1.NamespaceDeletionDiscoveryFailure, rest.Discovery != nil, "DiscoveryFailed", text("Discovery failed for some groups", rest.Discovery),
		"ResourcesDiscovered", "All resources successfully discovered")
	set(corev1.NamespaceDeletionGVParsingFailure, false, "", "", "ParsedGroupVersions", "All legacy kube types successfully parsed")
	set(corev1.NamespaceDeletionContentFailure, rest.Delete != nil, "ContentDeletionFailed",
		text("Failed to delete all resource types", rest.Delete),
		"ContentDeleted", "All content successfully deleted, may be waiting on finalization")
	set(corev1.NamespaceContentRemaining, len(rest.Objects) > 0, "SomeResourcesRemain",
		"Some resources are remaining: "+count(rest.Objects, "%s has %d resource instances"),
		"ContentRemoved", "All content successfully removed")
	set(corev1.NamespaceFinalizersRemaining, len(rest.Finalizers) > 0, "SomeFinalizersRemain",
		"Some content in the namespace has finalizers remaining: "+count(rest.Finalizers, "%s in %d resource instances"),
		"ContentHasNoFinalizers", "All content-preserving finalizers finished")
	return out
}

func text(what string, err error) string {
	if err == nil {
		return ""
	}
	return what + ": " + strings.ReplaceAll(err.Error(), "\n", "; ")
}

func count(m map[string]int, format string) string {
	parts := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf(format, k, m[k]))
	}
	return strings.Join(parts, ", ")
}
