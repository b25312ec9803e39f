package apiserver

import (
	"context"
	"errors"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"skein.dev/skein/apiserver/alloc"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/storage"
)

// claimAttempts is how often another address is tried when peers chose the
// same one at the same time.
const claimAttempts = 16

// claims tells the storage which resources claim keys.
func (*Server) claims(r schema.GroupResource) func(runtime.Object) []string {
	if r != (schema.GroupResource{Resource: "services"}) {
		return nil
	}
	return func(obj runtime.Object) []string {
		svc, ok := obj.(*corev1.Service)
		if !ok {
			return nil
		}
		return alloc.Claims(svc)
	}
}

// taken reports whether the replica knows a claim as held.
func (s *Server) taken(claim string) bool {
	return s.cfg.Store.Local().Get(storage.ClaimRoot+claim) != nil
}

// allocate makes the services' store give out addresses and ports.
func (s *Server) allocate(store *genericregistry.Store) {
	ranges := alloc.Ranges{CIDRs: s.cfg.ServiceCIDRs, FirstPort: s.cfg.NodePorts.First, LastPort: s.cfg.NodePorts.Last}
	nothing := func(context.Context, bool) {}
	store.BeginCreate = func(_ context.Context, obj runtime.Object, _ *metav1.CreateOptions) (genericregistry.FinishFunc, error) {
		svc, ok := obj.(*corev1.Service)
		if !ok {
			return nothing, nil
		}
		return nothing, invalidService(svc.Name, ranges.Fill(svc, s.taken))
	}
	store.BeginUpdate = func(_ context.Context, obj, old runtime.Object, _ *metav1.UpdateOptions) (genericregistry.FinishFunc, error) {
		svc, ok := obj.(*corev1.Service)
		before, ok2 := old.(*corev1.Service)
		if !ok || !ok2 {
			return nothing, nil
		}
		alloc.Keep(svc, before)
		held := alloc.Claims(before)
		return nothing, invalidService(svc.Name, ranges.Fill(svc, func(c string) bool { return s.taken(c) && !slices.Contains(held, c) }))
	}
}

func invalidService(name string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), name, errs)
}

// services serves services: as the kind itself does, but tries again when a
// chosen address turned out to be taken.
type services struct {
	standard
}

// standard is what the REST storage of a kind offers.
type standard interface {
	rest.StandardStorage
	rest.MayReturnFullObjectDeleter
	registry.Names
	rest.ResetFieldsStrategy
}

// Create implements rest.Creater.
func (v *services) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	var named []string
	if svc, ok := obj.(*corev1.Service); ok {
		asked := svc.DeepCopy()
		if asked.Spec.ClusterIP != "" && len(asked.Spec.ClusterIPs) == 0 {
			asked.Spec.ClusterIPs = []string{asked.Spec.ClusterIP}
		}
		named = alloc.Claims(asked)
	}
	return claiming(named, func() (runtime.Object, error) {
		return v.standard.Create(ctx, obj.DeepCopyObject(), validate, options)
	})
}

// Update implements rest.Updater.
func (v *services) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc,
	update rest.ValidateObjectUpdateFunc, force bool, options *metav1.UpdateOptions,
) (runtime.Object, bool, error) {
	created := false
	obj, err := claiming(nil, func() (runtime.Object, error) {
		var obj runtime.Object
		var err error
		obj, created, err = v.standard.Update(ctx, name, info, create, update, force, options)
		return obj, err
	})
	return obj, created, err
}

// claiming repeats write while what it chose itself is taken. named are the
// claims that the user chose: those are refused.
func claiming(named []string, write func() (runtime.Object, error)) (runtime.Object, error) {
	for range claimAttempts {
		obj, err := write()
		var c *storage.ClaimError
		if !errors.As(err, &c) {
			return obj, err
		}
		claim := strings.TrimPrefix(c.Key, storage.ClaimRoot)
		if slices.Contains(named, claim) {
			return nil, refusedClaim(claim)
		}
	}
	return nil, apierrors.NewServiceUnavailable("no free address was found in time: try again")
}

func refusedClaim(claim string) error {
	path, what := field.NewPath("spec", "clusterIPs"), "failed to allocate IP: provided IP is already allocated"
	value := strings.TrimPrefix(claim, "clusterip/")
	if rest, ok := strings.CutPrefix(claim, "nodeport/"); ok {
		path, what = field.NewPath("spec", "ports").Index(0).Child("nodePort"), "provided port is already allocated"
		_, value, _ = strings.Cut(rest, "/")
	}
	return invalidService("", field.ErrorList{field.Invalid(path, value, what)})
}
