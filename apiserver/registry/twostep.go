package registry

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"
	kstorage "k8s.io/apiserver/pkg/storage"
	storeerr "k8s.io/apiserver/pkg/storage/errors"
	"k8s.io/apiserver/pkg/util/dryrun"
)

// twoStep serves namespaces: the first deletion marks one as terminating, the
// last finalizer to go removes it. Nobody can delete all at once.
type twoStep struct {
	lasting

	all *main
}

// Names is what a kind says of its names.
type Names interface {
	rest.Scoper
	rest.ShortNamesProvider
	rest.CategoriesProvider
	rest.SingularNameProvider
}

type readable interface {
	rest.Getter
	rest.Lister
	rest.Watcher
}

// lasting is what a kind can do but delete.
type lasting interface {
	rest.Storage
	Names
	readable
	rest.CreaterUpdater
	rest.ResetFieldsStrategy
	rest.StorageVersionProvider
}

// putOnly is a subresource that cannot be read.
type putOnly struct{ writable }

type writable interface {
	rest.Storage
	rest.Updater
}

var _ rest.GracefulDeleter = (*twoStep)(nil)

// Delete implements rest.GracefulDeleter.
func (t *twoStep) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	obj, err := t.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, false, err
	}
	ns, ok := obj.(*corev1.Namespace)
	if !ok {
		return nil, false, fmt.Errorf("delete %s: %T has no finalizers of its own", name, obj)
	}
	if options == nil {
		options = metav1.NewDeleteOptions(0)
	}
	pre := &kstorage.Preconditions{UID: &ns.UID}
	if p := options.Preconditions; p != nil {
		if p.UID != nil && *p.UID != ns.UID {
			return nil, false, apierrors.NewConflict(t.all.DefaultQualifiedResource, name,
				//nolint:staticcheck // these are the words of upstream
				fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", *p.UID, ns.UID))
		}
		pre.ResourceVersion = p.ResourceVersion
	}
	if !ns.DeletionTimestamp.IsZero() {
		if len(ns.Spec.Finalizers) > 0 {
			return ns, false, nil
		}
		return t.all.Delete(ctx, name, validate, options)
	}
	return t.mark(ctx, name, pre, validate, options)
}

func (t *twoStep) mark(ctx context.Context, name string, pre *kstorage.Preconditions, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	key, err := t.all.KeyFunc(ctx, name)
	if err != nil {
		return nil, false, err
	}
	out := t.all.NewFunc()
	update := kstorage.SimpleUpdate(func(obj runtime.Object) (runtime.Object, error) {
		ns, ok := obj.(*corev1.Namespace)
		if !ok {
			return nil, fmt.Errorf("expected a namespace, got %T", obj)
		}
		if err := validate(ctx, ns); err != nil {
			return nil, err
		}
		if ns.DeletionTimestamp.IsZero() {
			now := metav1.Now()
			ns.DeletionTimestamp = &now
		}
		ns.Status.Phase = corev1.NamespaceTerminating
		return ns, nil
	})
	if err := t.all.Storage.GuaranteedUpdate(ctx, key, out, false, pre, update, dryrun.IsDryRun(options.DryRun), nil); err != nil {
		return nil, false, storeerr.InterpretUpdateError(err, t.all.DefaultQualifiedResource, name)
	}
	if ns, ok := out.(*corev1.Namespace); ok && len(ns.Spec.Finalizers) == 0 && len(ns.Finalizers) == 0 {
		return t.all.Delete(ctx, name, validate, options)
	}
	return out, false, nil
}
