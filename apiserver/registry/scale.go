package registry

import (
	"context"
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// scale serves the scale subresource.
type scale struct {
	store *genericregistry.Store
	kind  *Kind
}

var (
	_ rest.Patcher                  = (*scale)(nil)
	_ rest.GroupVersionKindProvider = (*scale)(nil)
)

// GroupVersionKind implements rest.GroupVersionKindProvider.
func (s *scale) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return autoscalingv1.SchemeGroupVersion.WithKind("Scale")
}

// New implements rest.Storage.
func (s *scale) New() runtime.Object { return &autoscalingv1.Scale{} }

// Destroy implements rest.Storage.
func (s *scale) Destroy() {}

// Get implements rest.Getter.
func (s *scale) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	obj, err := s.store.Get(ctx, name, options)
	if err != nil {
		return nil, err
	}
	return s.of(obj)
}

// ConvertToTable implements rest.TableConvertor.
func (s *scale) ConvertToTable(ctx context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	return rest.NewDefaultTableConvertor(s.store.DefaultQualifiedResource).ConvertToTable(ctx, obj, options)
}

func (s *scale) of(obj runtime.Object) (*autoscalingv1.Scale, error) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	entries, err := s.handler(m).ToSubresource()
	if err != nil {
		return nil, fmt.Errorf("managed fields of scale %s: %w", m.GetName(), err)
	}
	spec, status, selector := s.kind.Scale.Replicas(obj)
	return &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{
			Name: m.GetName(), Namespace: m.GetNamespace(), UID: m.GetUID(),
			ResourceVersion: m.GetResourceVersion(), CreationTimestamp: m.GetCreationTimestamp(), ManagedFields: entries,
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: spec},
		Status: autoscalingv1.ScaleStatus{Replicas: status, Selector: selector},
	}, nil
}

func (s *scale) handler(m metav1.Object) *managedfields.ScaleHandler {
	gv := s.kind.Resource.GroupVersion()
	return managedfields.NewScaleHandler(m.GetManagedFields(), gv,
		managedfields.ResourcePathMappings{gv.String(): fieldpath.MakePathOrDie("spec", "replicas")})
}

// Update implements rest.Updater.
func (s *scale) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc,
	update rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions,
) (runtime.Object, bool, error) {
	obj, _, err := s.store.Update(ctx, name, &scaleInfo{info: info, scale: s, name: name},
		s.checkCreate(create), s.checkUpdate(update), false, options)
	if err != nil {
		return nil, false, err
	}
	out, err := s.of(obj)
	return out, false, err
}

func (s *scale) checkCreate(f rest.ValidateObjectFunc) rest.ValidateObjectFunc {
	return func(ctx context.Context, obj runtime.Object) error {
		sc, err := s.of(obj)
		if err != nil {
			return err
		}
		return f(ctx, sc)
	}
}

func (s *scale) checkUpdate(f rest.ValidateObjectUpdateFunc) rest.ValidateObjectUpdateFunc {
	return func(ctx context.Context, obj, old runtime.Object) error {
		now, err := s.of(obj)
		if err != nil {
			return err
		}
		before, err := s.of(old)
		if err != nil {
			return err
		}
		return f(ctx, now, before)
	}
}

// scaleInfo turns a change of a Scale into one of the object it scales.
type scaleInfo struct {
	info  rest.UpdatedObjectInfo
	scale *scale
	name  string
}

// Preconditions implements rest.UpdatedObjectInfo.
func (i *scaleInfo) Preconditions() *metav1.Preconditions { return i.info.Preconditions() }

// UpdatedObject implements rest.UpdatedObjectInfo.
func (i *scaleInfo) UpdatedObject(ctx context.Context, old runtime.Object) (runtime.Object, error) {
	s := i.scale
	obj := old.DeepCopyObject()
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	if m.GetResourceVersion() == "" {
		return nil, apierrors.NewNotFound(s.store.DefaultQualifiedResource, i.name)
	}
	before, err := s.of(obj)
	if err != nil {
		return nil, err
	}
	updated, err := i.info.UpdatedObject(ctx, before)
	if err != nil {
		return nil, err
	}
	want, ok := updated.(*autoscalingv1.Scale)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("expected a Scale, got %T", updated))
	}
	if want.Spec.Replicas < 0 {
		return nil, apierrors.NewInvalid(autoscalingv1.SchemeGroupVersion.WithKind("Scale").GroupKind(), i.name,
			field.ErrorList{field.Invalid(field.NewPath("spec", "replicas"), want.Spec.Replicas, "must be greater than or equal to 0")})
	}
	handler := s.handler(m)
	s.kind.Scale.Set(obj, want.Spec.Replicas)
	if want.ResourceVersion != "" {
		m.SetResourceVersion(want.ResourceVersion)
	}
	if want.UID != "" {
		m.SetUID(want.UID)
	}
	entries, err := handler.ToParent(want.ManagedFields)
	if err != nil {
		return nil, fmt.Errorf("managed fields of %s: %w", i.name, err)
	}
	m.SetManagedFields(entries)
	return obj, nil
}
