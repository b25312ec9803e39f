package registry

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"skein.dev/skein/apiserver/storage"
)

// Resource is one served kind: its store and what the API offers of it.
type Resource struct {
	Kind  *Kind
	Store *genericregistry.Store
	// Keep is the storage under Store.
	Keep *storage.Storage
	// Paths are the REST storages by path below the version: "pods", "pods/status".
	Paths map[string]rest.Storage
}

// New builds the REST storage of k.
func New(k *Kind, s *Scheme, options *Options) (*Resource, error) {
	var reset []string
	if k.Status != nil {
		reset = []string{"status"}
	}
	rules := newStrategy(s, k, &k.Strategy, reset...)
	store := &genericregistry.Store{
		NewFunc: k.New, NewListFunc: k.NewList,
		DefaultQualifiedResource:  k.Resource.GroupResource(),
		SingularQualifiedResource: k.Resource.GroupVersion().WithResource(k.Singular).GroupResource(),
		CreateStrategy:            rules, UpdateStrategy: rules, DeleteStrategy: rules, ResetFieldsStrategy: rules,
		TableConvertor: table{k},
	}
	store.ReturnDeletedObject = k.ReturnDeleted || k.Grace != nil || k.Finalize != nil
	if k.Grace != nil {
		store.DeleteStrategy = graceful{rules}
	}
	if k.TTL != nil {
		store.TTLFunc = func(obj runtime.Object, _ uint64, _ bool) (uint64, error) { return k.TTL(obj), nil }
	}
	if k.Finalize != nil {
		store.ShouldDeleteDuringUpdate = emptied
	}
	if err := store.CompleteWithOptions(&generic.StoreOptions{RESTOptions: options.getter(s, k), AttrFunc: k.attrs()}); err != nil {
		return nil, fmt.Errorf("complete store of %s: %w", k.Resource.Resource, err)
	}
	keep, ok := store.Storage.Storage.(*storage.Storage)
	if !ok {
		return nil, fmt.Errorf("store of %s: storage is a %T", k.Resource.Resource, store.Storage.Storage)
	}
	r := &Resource{Kind: k, Store: store, Keep: keep, Paths: map[string]rest.Storage{}}
	r.paths(s)
	return r, nil
}

func (r *Resource) paths(s *Scheme) {
	k, plural := r.Kind, r.Kind.Resource.Resource
	r.Paths[plural] = &main{Store: r.Store, kind: k}
	if k.Finalize != nil {
		all := &main{Store: r.Store, kind: k}
		r.Paths[plural] = &twoStep{lasting: all, all: all}
		r.Paths[plural+"/finalize"] = &putOnly{r.sub(newStrategy(s, k, k.Finalize))}
	}
	if k.Status != nil {
		r.Paths[plural+"/status"] = r.sub(newStrategy(s, k, k.Status, append([]string{"spec"}, k.Status.Reset...)...))
	}
	for name, rules := range k.Subresources {
		r.Paths[plural+"/"+name] = r.sub(newStrategy(s, k, rules, rules.Reset...))
	}
	if k.Scale != nil {
		r.Paths[plural+"/scale"] = &scale{store: r.Store, kind: k}
	}
}

func (r *Resource) sub(rules strategy) *Sub {
	store := *r.Store
	store.UpdateStrategy, store.ResetFieldsStrategy = rules, rules
	return &Sub{store: &store}
}

func (k *Kind) attrs() func(obj runtime.Object) (labels.Set, fields.Set, error) {
	return func(obj runtime.Object) (labels.Set, fields.Set, error) {
		m, err := meta.Accessor(obj)
		if err != nil {
			return nil, nil, err
		}
		var set fields.Set
		if k.Select != nil {
			set = k.Select(obj)
		}
		if set == nil {
			set = fields.Set{}
		}
		set["metadata.name"] = m.GetName()
		if k.Namespaced {
			set["metadata.namespace"] = m.GetNamespace()
		}
		return m.GetLabels(), set, nil
	}
}

// main serves a kind itself.
type main struct {
	*genericregistry.Store

	kind *Kind
}

// ShortNames implements rest.ShortNamesProvider.
func (m *main) ShortNames() []string { return m.kind.ShortNames }

// Categories implements rest.CategoriesProvider.
func (m *main) Categories() []string { return m.kind.Categories }

// Sub serves a subresource that is the same object under other rules.
type Sub struct{ store *genericregistry.Store }

var (
	_ rest.Patcher             = (*Sub)(nil)
	_ rest.ResetFieldsStrategy = (*Sub)(nil)
)

// New implements rest.Storage.
func (s *Sub) New() runtime.Object { return s.store.New() }

// Destroy implements rest.Storage; the kind itself is destroyed once, elsewhere.
func (s *Sub) Destroy() {}

// Get implements rest.Getter.
func (s *Sub) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return s.store.Get(ctx, name, options)
}

// Update implements rest.Updater; a subresource never creates its object.
func (s *Sub) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc,
	update rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions,
) (runtime.Object, bool, error) {
	return s.store.Update(ctx, name, info, create, update, false, options)
}

// GetResetFields implements rest.ResetFieldsStrategy.
func (s *Sub) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return s.store.GetResetFields()
}

// ConvertToTable implements rest.TableConvertor.
func (s *Sub) ConvertToTable(ctx context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	return s.store.ConvertToTable(ctx, obj, options)
}

// emptied reports whether a namespace that is being deleted has lost its last finalizer.
func emptied(ctx context.Context, key string, obj, existing runtime.Object) bool {
	ns, ok := obj.(*corev1.Namespace)
	return ok && len(ns.Spec.Finalizers) == 0 && genericregistry.ShouldDeleteDuringUpdate(ctx, key, obj, existing)
}
