package pods

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/controllers/run"
)

// Claimer adopts and releases pods for an owner.
type Claimer struct {
	Client typedcorev1.PodsGetter
	// Informer must have [run.IndexByOwner].
	Informer cache.SharedIndexInformer
	Kind     schema.GroupVersionKind
	// Live reads the owner from the API: nobody is adopted by an owner that
	// is already being deleted or was replaced by one of the same name.
	Live func(context.Context) (metav1.Object, error)
	// Mine, if set, must hold for a pod to be claimed, beside the selector.
	Mine func(*corev1.Pod) bool
	// Finalizer, if set, is put on adopted pods.
	Finalizer string
}

func (c Claimer) matches(selector labels.Selector, p *corev1.Pod) bool {
	return selector.Matches(labels.Set(p.Labels)) && (c.Mine == nil || c.Mine(p))
}

// Claim returns the pods that are owner's after orphans matching selector
// were adopted and own pods that match no more were let go.
func (c Claimer) Claim(ctx context.Context, owner metav1.Object, selector labels.Selector) ([]*corev1.Pod, error) {
	owned, orphan := run.Owned(c.Informer, owner)
	var mine []*corev1.Pod
	for _, o := range owned {
		p, ok := o.(*corev1.Pod)
		if !ok {
			continue
		}
		if c.matches(selector, p) {
			mine = append(mine, p)
			continue
		}
		if owner.GetDeletionTimestamp() != nil {
			continue
		}
		if err := c.release(ctx, owner, p); err != nil {
			return nil, err
		}
	}
	if owner.GetDeletionTimestamp() != nil {
		return mine, nil
	}
	checked := false
	for _, o := range orphan {
		p, ok := o.(*corev1.Pod)
		if !ok || p.DeletionTimestamp != nil || Finished(p) || !c.matches(selector, p) {
			continue
		}
		if !checked {
			if err := c.check(ctx, owner); err != nil {
				return nil, err
			}
			checked = true
		}
		adopted, err := c.adopt(ctx, owner, p)
		if err != nil {
			return nil, err
		}
		if adopted {
			mine = append(mine, p)
		}
	}
	return mine, nil
}

func (c Claimer) check(ctx context.Context, owner metav1.Object) error {
	live, err := c.Live(ctx)
	if err != nil {
		return fmt.Errorf("read owner %s before adoption: %w", owner.GetName(), err)
	}
	if live.GetUID() != owner.GetUID() || live.GetDeletionTimestamp() != nil {
		return fmt.Errorf("adopt for %s: the owner is gone or being deleted", owner.GetName())
	}
	return nil
}

func (c Claimer) adopt(ctx context.Context, owner metav1.Object, p *corev1.Pod) (bool, error) {
	patch, err := ownerPatch(p.UID, *metav1.NewControllerRef(owner, c.Kind), c.Finalizer)
	if err != nil {
		return false, err
	}
	_, err = c.Client.Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) { // gone, or another controller was faster
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("adopt pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	return true, nil
}

func (c Claimer) release(ctx context.Context, owner metav1.Object, p *corev1.Pod) error {
	patch, err := ownerPatch(p.UID, map[string]any{"$patch": "delete", "uid": owner.GetUID()}, "")
	if err != nil {
		return err
	}
	_, err = c.Client.Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsInvalid(err) {
		return fmt.Errorf("release pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	return nil
}

func ownerPatch(uid types.UID, ref any, finalizer string) ([]byte, error) {
	meta := map[string]any{"uid": uid, "ownerReferences": []any{ref}}
	if finalizer != "" {
		meta["finalizers"] = []string{finalizer}
	}
	b, err := json.Marshal(map[string]any{"metadata": meta})
	if err != nil {
		return nil, fmt.Errorf("encode owner patch: %w", err)
	}
	return b, nil
}
