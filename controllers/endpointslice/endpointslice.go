// Package endpointslice lists in EndpointSlices which pods answer for a
// Service.
//
// Its invariant: slices that other controllers or users manage are never
// touched, and a slice is rewritten only if an endpoint of it changed.
package endpointslice

import (
	"context"
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
	"skein.dev/skein/controllers/pods"
	"skein.dev/skein/controllers/run"
)

// ManagedBy is the value of the managed-by label of our slices.
const ManagedBy = "endpointslice-controller.k8s.io"

// Controller reconciles Services into EndpointSlices.
type Controller struct {
	kit      component.Kit
	services corelisters.ServiceLister
	pods     corelisters.PodLister
	nodes    corelisters.NodeLister
	slices   discoverylisters.EndpointSliceLister
	ledger   *run.Ledger
}

// New takes its informers from kit.
func New(kit component.Kit) (run.Controller, error) {
	core, slices := kit.Informers.Core().V1(), kit.Informers.Discovery().V1().EndpointSlices()
	c := &Controller{
		kit: kit, services: core.Services().Lister(), pods: core.Pods().Lister(), nodes: core.Nodes().Lister(),
		slices: slices.Lister(), ledger: run.NewLedger(slices.Informer()),
	}
	return run.Controller{
		Name: "endpointslice-controller",
		Reads: []run.Source{
			{Informer: core.Services().Informer()},
			{Informer: core.Pods().Informer(), Keys: pods.ServiceKeys(c.services), Changed: pods.Changed},
			{Informer: slices.Informer(), Keys: keysOfSlice},
			{Informer: core.Nodes().Informer(), Keys: c.keysOfNode, Changed: zoneChanged},
		},
		Writes:    []string{"endpointslices.discovery.k8s.io"},
		Workers:   4,
		Reconcile: c.reconcile,
		Reset:     c.ledger.Reset,
	}, nil
}

func keysOfSlice(obj any) []run.Key {
	s, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok || s.Labels[discoveryv1.LabelManagedBy] != ManagedBy || s.Labels[discoveryv1.LabelServiceName] == "" {
		return nil
	}
	return []run.Key{{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}}
}

// keysOfNode is every service: a node's zone is part of its endpoints, and
// zones change about never.
func (c *Controller) keysOfNode(any) []run.Key {
	all, err := c.services.List(labels.Everything())
	if err != nil { // a lister over a store never fails
		return nil
	}
	keys := make([]run.Key, 0, len(all))
	for _, s := range all {
		if len(s.Spec.Selector) > 0 {
			keys = append(keys, run.Key{Namespace: s.Namespace, Name: s.Name})
		}
	}
	return keys
}

func zoneChanged(before, after any) bool {
	a, ok := before.(*corev1.Node)
	b, ok2 := after.(*corev1.Node)
	return !ok || !ok2 || a.Labels[corev1.LabelTopologyZone] != b.Labels[corev1.LabelTopologyZone]
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	if !c.ledger.Settled(key) {
		return run.Unsettled, nil
	}
	svc, err := c.services.Services(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) { // its slices go with it, by owner reference
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read service: %w", err)
	}
	if len(svc.Spec.Selector) == 0 || svc.Spec.Type == corev1.ServiceTypeExternalName || svc.DeletionTimestamp != nil {
		return 0, nil
	}
	selected, err := c.pods.Pods(key.Namespace).List(labels.SelectorFromSet(svc.Spec.Selector))
	if err != nil {
		return 0, fmt.Errorf("list pods: %w", err)
	}
	have, err := c.slices.EndpointSlices(key.Namespace).List(labels.SelectorFromSet(labels.Set{
		discoveryv1.LabelServiceName: svc.Name, discoveryv1.LabelManagedBy: ManagedBy,
	}))
	if err != nil {
		return 0, fmt.Errorf("list endpointslices: %w", err)
	}
	return 0, c.apply(ctx, key, svc, Diff(svc, have, Groups(svc, selected, c.zone)))
}

func (c *Controller) zone(node string) string {
	n, err := c.nodes.Get(node)
	if err != nil {
		return ""
	}
	return n.Labels[corev1.LabelTopologyZone]
}

// apply creates before it deletes, so that an endpoint that moves between
// slices is never missing from both.
func (c *Controller) apply(ctx context.Context, key run.Key, svc *corev1.Service, ch Changes) error {
	client := c.kit.Client.DiscoveryV1().EndpointSlices(svc.Namespace)
	for _, s := range ch.Create {
		s.Name = pods.Name(svc.Name + "-")
		made, err := client.Create(ctx, s, metav1.CreateOptions{})
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		if err != nil {
			return c.failed(svc, "Create", fmt.Errorf("create endpointslice: %w", err))
		}
		c.ledger.Created(key, made)
	}
	for _, s := range ch.Update {
		if _, err := client.Update(ctx, s, metav1.UpdateOptions{}); err != nil {
			if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
				return err //nolint:wrapcheck // the loop looks at the kind
			}
			return c.failed(svc, "Update", fmt.Errorf("update endpointslice %s: %w", s.Name, err))
		}
	}
	for _, s := range ch.Delete {
		err := client.Delete(ctx, s.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID}})
		if err != nil && !apierrors.IsNotFound(err) {
			return c.failed(svc, "Delete", fmt.Errorf("delete endpointslice %s: %w", s.Name, err))
		}
		c.ledger.Deleted(key, s)
	}
	return nil
}

func (c *Controller) failed(svc *corev1.Service, action string, err error) error {
	c.kit.Recorder.Eventf(svc, nil, corev1.EventTypeWarning, "FailedToUpdateEndpointSlices", action,
		"Error updating Endpoint Slices for Service %s/%s: %v", svc.Namespace, svc.Name, err)
	return err
}
