// Package endpointslicemirroring copies Endpoints that people write into
// EndpointSlices, which is all that proxies and DNS read.
//
// Its invariant: it touches only slices that it made itself, and only for
// services without a selector.
package endpointslicemirroring

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/run"
)

// Controller reconciles Endpoints.
type Controller struct {
	kit       component.Kit
	endpoints corelisters.EndpointsLister
	services  corelisters.ServiceLister
	slices    discoverylisters.EndpointSliceLister
	ledger    *run.Ledger
}

// New takes its informers from kit.
func New(kit component.Kit) (run.Controller, error) {
	core, discovery := kit.Informers.Core().V1(), kit.Informers.Discovery().V1()
	c := &Controller{
		kit: kit, endpoints: core.Endpoints().Lister(), services: core.Services().Lister(), slices: discovery.EndpointSlices().Lister(),
		ledger: run.NewLedger(discovery.EndpointSlices().Informer()),
	}
	return run.Controller{
		Name: "endpointslice-mirroring-controller",
		Reads: []run.Source{
			{Informer: core.Endpoints().Informer()},
			{Informer: core.Services().Informer(), Changed: func(before, after any) bool {
				a, ok := before.(*corev1.Service)
				b, ok2 := after.(*corev1.Service)
				return !ok || !ok2 || (a.Spec.Selector == nil) != (b.Spec.Selector == nil)
			}},
			{Informer: discovery.EndpointSlices().Informer(), Keys: ours},
		},
		Writes: []string{"endpointslices.discovery.k8s.io"}, Reconcile: c.reconcile, Reset: c.ledger.Reset,
	}, nil
}

func ours(obj any) []run.Key {
	s, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok || s.Labels[discoveryv1.LabelManagedBy] != managedBy {
		return nil
	}
	return []run.Key{{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}}
}

// mirrored is what is to be mirrored under a key, nil: nothing.
func (c *Controller) mirrored(key run.Key) (*Endpoints, error) {
	ep, err := c.endpoints.Endpoints(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // documented
	}
	if err != nil {
		return nil, fmt.Errorf("read endpoints: %w", err)
	}
	svc, err := c.services.Services(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // documented
	}
	if err != nil {
		return nil, fmt.Errorf("read service: %w", err)
	}
	if svc.Spec.Selector != nil || !wanted(ep) {
		return nil, nil //nolint:nilnil // documented
	}
	return ep, nil
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	if !c.ledger.Settled(key) {
		return run.Unsettled, nil
	}
	have, err := c.slices.EndpointSlices(key.Namespace).List(labels.SelectorFromSet(labels.Set{
		discoveryv1.LabelServiceName: key.Name, discoveryv1.LabelManagedBy: managedBy,
	}))
	if err != nil {
		return 0, fmt.Errorf("list slices: %w", err)
	}
	ep, err := c.mirrored(key)
	if err != nil {
		return 0, err
	}
	ch := Diff(have, Slices(ep))
	client := c.kit.Client.DiscoveryV1().EndpointSlices(key.Namespace)
	var errs []error
	for _, s := range ch.Create {
		got, err := client.Create(ctx, s, metav1.CreateOptions{})
		if err == nil {
			c.ledger.Created(key, got)
		} else if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			errs = append(errs, fmt.Errorf("create slice: %w", err))
		}
	}
	for _, s := range ch.Update {
		got, err := client.Update(ctx, s, metav1.UpdateOptions{})
		if err == nil {
			c.ledger.Wrote(key, got)
		} else if !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("update slice %s: %w", s.Name, err))
		}
	}
	for _, s := range ch.Delete {
		err := client.Delete(ctx, s.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID}})
		if err == nil {
			c.ledger.Deleted(key, s)
		} else if !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("delete slice %s: %w", s.Name, err))
		}
	}
	return 0, errors.Join(errs...)
}
