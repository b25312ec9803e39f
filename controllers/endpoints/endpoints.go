// Package endpoints mirrors Services into the legacy Endpoints objects, which
// kubectl get endpoints and old clients read.
//
// Its invariant: it deletes and overwrites only objects that carry its label
// or the name of a service with a selector.
package endpoints

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/pods"
	"skein.dev/skein/controllers/run"
)

// managedLabel and managedBy mark our objects.
const (
	managedLabel = "endpoints.kubernetes.io/managed-by"
	managedBy    = "endpoint-controller"
)

// Controller reconciles Services into Endpoints.
type Controller struct {
	kit      component.Kit
	services corelisters.ServiceLister
	pods     corelisters.PodLister
	ends     corelisters.EndpointsLister
}

// New takes its informers from kit.
func New(kit component.Kit) (run.Controller, error) {
	core := kit.Informers.Core().V1()
	c := &Controller{kit: kit, services: core.Services().Lister(), pods: core.Pods().Lister(), ends: core.Endpoints().Lister()}
	return run.Controller{
		Name: "endpoints-controller",
		Reads: []run.Source{
			{Informer: core.Services().Informer()},
			{Informer: core.Pods().Informer(), Keys: pods.ServiceKeys(c.services), Changed: pods.Changed},
			{Informer: core.Endpoints().Informer()},
		},
		Writes:    []string{"endpoints"},
		Reconcile: c.reconcile,
	}, nil
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	client := c.kit.Client.CoreV1().Endpoints(key.Namespace)
	have, err := c.ends.Endpoints(key.Namespace).Get(key.Name)
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("read endpoints: %w", err)
	}
	svc, err := c.services.Services(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		if have == nil || have.Labels[managedLabel] != managedBy {
			return 0, nil
		}
		err = client.Delete(ctx, have.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &have.UID}})
		if err != nil && !apierrors.IsNotFound(err) {
			return 0, fmt.Errorf("delete endpoints: %w", err)
		}
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
	subsets, cut := Subsets(svc, selected)
	want := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: svc.Name, Namespace: svc.Namespace}}
	if have != nil {
		want = have.DeepCopy()
	}
	want.Labels = labelsOf(svc)
	want.Subsets = subsets
	annotate(want, cut)
	switch {
	case have == nil:
		_, err = client.Create(ctx, want, metav1.CreateOptions{})
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) || apierrors.IsAlreadyExists(err) {
			return 0, nil
		}
	case !equality.Semantic.DeepEqual(have, want):
		_, err = client.Update(ctx, want, metav1.UpdateOptions{})
		if apierrors.IsConflict(err) {
			return 0, err //nolint:wrapcheck // the loop looks at the kind
		}
	}
	if err != nil {
		return 0, fmt.Errorf("write endpoints: %w", err)
	}
	return 0, nil
}

func labelsOf(svc *corev1.Service) map[string]string {
	l := maps.Clone(svc.Labels)
	if l == nil {
		l = map[string]string{}
	}
	l[managedLabel] = managedBy
	delete(l, corev1.IsHeadlessService)
	if svc.Spec.ClusterIP == corev1.ClusterIPNone {
		l[corev1.IsHeadlessService] = ""
	}
	return l
}

// annotate tells readers whether the list was cut.
func annotate(e *corev1.Endpoints, cut bool) {
	if !cut {
		delete(e.Annotations, corev1.EndpointsOverCapacity)
		return
	}
	if e.Annotations == nil {
		e.Annotations = map[string]string{}
	}
	e.Annotations[corev1.EndpointsOverCapacity] = "truncated"
}
