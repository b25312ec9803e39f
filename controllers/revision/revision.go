// Package revision keeps the history of a pod template as ControllerRevisions,
// from which kubectl rollout undo works.
//
// Its invariant: equal templates have one revision, and the newest number is
// always that of the present template.
package revision

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"
	typedappsv1 "k8s.io/client-go/kubernetes/typed/apps/v1"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/controllers/run"
)

// Keeper keeps the history of owners of one kind.
type Keeper struct {
	Client typedappsv1.ControllerRevisionsGetter
	// Informer is that of ControllerRevisions, with [run.IndexByOwner].
	Informer cache.SharedIndexInformer
	Kind     schema.GroupVersionKind
}

// Data is what a revision stores: a patch that brings the template back.
func Data(template *corev1.PodTemplateSpec) ([]byte, error) {
	raw, err := json.Marshal(template)
	if err != nil {
		return nil, fmt.Errorf("encode template: %w", err)
	}
	var t map[string]any
	if err := json.Unmarshal(raw, &t); err != nil {
		return nil, fmt.Errorf("decode template: %w", err)
	}
	t["$patch"] = "replace"
	out, err := json.Marshal(map[string]any{"spec": map[string]any{"template": t}})
	if err != nil {
		return nil, fmt.Errorf("encode revision: %w", err)
	}
	return out, nil
}

// Template is the pod template that a revision stores.
func Template(r *appsv1.ControllerRevision) (*corev1.PodTemplateSpec, error) {
	var v struct {
		Spec struct {
			Template corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(r.Data.Raw, &v); err != nil {
		return nil, fmt.Errorf("decode revision %s: %w", r.Name, err)
	}
	return &v.Spec.Template, nil
}

// List returns the owner's revisions, oldest number first.
func (k Keeper) List(owner metav1.Object) []*appsv1.ControllerRevision {
	var out []*appsv1.ControllerRevision
	for _, o := range run.ControlledBy(k.Informer, owner.GetUID()) {
		if r, ok := o.(*appsv1.ControllerRevision); ok {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *appsv1.ControllerRevision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// Current returns the revision of template, made or renumbered if need be,
// and all others, oldest first.
func (k Keeper) Current(ctx context.Context, owner metav1.Object, template *corev1.PodTemplateSpec, collision *int32) (current *appsv1.ControllerRevision, old []*appsv1.ControllerRevision, err error) {
	data, err := Data(template)
	if err != nil {
		return nil, nil, err
	}
	top := int64(0)
	for _, r := range k.List(owner) {
		top = max(top, r.Revision)
		if bytes.Equal(r.Data.Raw, data) {
			// Of equal ones, which only somebody else can have made, the
			// newest counts: then nothing needs a new number.
			current, r = r, current
		}
		if r != nil {
			old = append(old, r)
		}
	}
	client := k.Client.ControllerRevisions(owner.GetNamespace())
	if current != nil {
		if current.Revision == top {
			return current, old, nil
		}
		up := current.DeepCopy()
		up.Revision = top + 1
		if current, err = client.Update(ctx, up, metav1.UpdateOptions{}); err != nil {
			return nil, nil, fmt.Errorf("renumber revision: %w", err)
		}
		return current, old, nil
	}
	hash := hashOf(data, collision)
	made := &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Name: owner.GetName() + "-" + hash, Namespace: owner.GetNamespace(), Labels: labels(template, hash),
			Annotations:     maps.Clone(owner.GetAnnotations()), // kubectl rollout history reads the change's cause there
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, k.Kind)},
		},
		Data: runtime.RawExtension{Raw: data}, Revision: top + 1,
	}
	got, err := client.Create(ctx, made, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) { // ours, not yet seen, or a stranger's
		if got, err = client.Get(ctx, made.Name, metav1.GetOptions{}); err == nil && !bytes.Equal(got.Data.Raw, data) {
			return nil, nil, fmt.Errorf("revision %s: %w", made.Name, ErrCollision)
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("create revision: %w", err)
	}
	return got, old, nil
}

// ErrCollision says that another template has the same hash; count up and try again.
var ErrCollision = errors.New("hash collision")

// Prune deletes the oldest revisions beyond limit that nobody in live uses.
func (k Keeper) Prune(ctx context.Context, old []*appsv1.ControllerRevision, limit int, live map[string]bool) error {
	var idle []*appsv1.ControllerRevision
	for _, r := range old {
		if !live[r.Labels[appsv1.ControllerRevisionHashLabelKey]] && !live[r.Name] {
			idle = append(idle, r)
		}
	}
	for _, r := range idle[:max(0, len(idle)-limit)] {
		err := k.Client.ControllerRevisions(r.Namespace).Delete(ctx, r.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete revision %s: %w", r.Name, err)
		}
	}
	return nil
}

func labels(template *corev1.PodTemplateSpec, hash string) map[string]string {
	out := map[string]string{}
	maps.Copy(out, template.Labels)
	out[appsv1.ControllerRevisionHashLabelKey] = hash
	return out
}

func hashOf(data []byte, collision *int32) string {
	h := fnv.New32a()
	_, _ = h.Write(data) // a hash never fails
	if collision != nil {
		_, _ = h.Write(strconv.AppendInt(nil, int64(*collision), 10))
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}
