package podrest

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	storeerr "k8s.io/apiserver/pkg/storage/errors"
	"k8s.io/apiserver/pkg/util/dryrun"
)

// Eviction serves pods/eviction.
type Eviction struct {
	Pods    *genericregistry.Store
	Budgets *genericregistry.Store // nil: disruption budgets are not served
	Version schema.GroupVersion
}

var (
	_ rest.NamedCreater             = (*Eviction)(nil)
	_ rest.GroupVersionKindProvider = (*Eviction)(nil)
	_ rest.GroupVersionAcceptor     = (*Eviction)(nil)
)

// GroupVersionKind implements rest.GroupVersionKindProvider.
func (e *Eviction) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return e.Version.WithKind("Eviction")
}

// AcceptsGroupVersion implements rest.GroupVersionAcceptor.
func (e *Eviction) AcceptsGroupVersion(gv schema.GroupVersion) bool { return gv == e.Version }

// New implements rest.Storage.
func (*Eviction) New() runtime.Object { return &policyv1.Eviction{} }

// Destroy implements rest.Storage.
func (*Eviction) Destroy() {}

// Create implements rest.NamedCreater.
func (e *Eviction) Create(ctx context.Context, name string, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	ev, ok := obj.(*policyv1.Eviction)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Eviction object: %T", obj))
	}
	if name != ev.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	if validate != nil {
		if err := validate(ctx, ev.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	del := ev.DeleteOptions
	if del == nil {
		del = &metav1.DeleteOptions{}
	}
	if len(options.DryRun) > 0 {
		del.DryRun = options.DryRun
	}
	obj, err := e.Pods.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return nil, fmt.Errorf("unexpected object: %T", obj)
	}
	if err := spend(ctx, e.Budgets, pod, dryrun.IsDryRun(del.DryRun)); err != nil {
		return nil, err
	}
	if err := e.mark(ctx, name, del); err != nil {
		return nil, err
	}
	if _, _, err := e.Pods.Delete(ctx, name, rest.ValidateAllObjectFunc, del); err != nil {
		return nil, err
	}
	return &metav1.Status{Status: metav1.StatusSuccess}, nil
}

// mark says on the pod why it goes.
func (e *Eviction) mark(ctx context.Context, name string, del *metav1.DeleteOptions) error {
	key, err := e.Pods.KeyFunc(ctx, name)
	if err != nil {
		return err
	}
	var pre *storage.Preconditions
	if p := del.Preconditions; p != nil {
		pre = &storage.Preconditions{UID: p.UID, ResourceVersion: p.ResourceVersion}
	}
	update := storage.SimpleUpdate(func(obj runtime.Object) (runtime.Object, error) {
		pod, ok := obj.(*corev1.Pod)
		if !ok {
			return nil, fmt.Errorf("unexpected object: %T", obj)
		}
		setCondition(&pod.Status, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI",
			Message: "Eviction API: evicting", ObservedGeneration: pod.Generation,
		})
		return pod, nil
	})
	err = e.Pods.Storage.GuaranteedUpdate(ctx, key, &corev1.Pod{}, false, pre, update, dryrun.IsDryRun(del.DryRun), nil)
	if err == nil && del.Preconditions != nil && del.Preconditions.ResourceVersion != nil {
		del.Preconditions.ResourceVersion = nil // it was checked, and the mark has changed it
	}
	return storeerr.InterpretUpdateError(err, e.Pods.DefaultQualifiedResource, name)
}
