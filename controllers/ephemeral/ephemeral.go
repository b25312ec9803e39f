// Package ephemeral makes the claims of pods' ephemeral volumes.
//
// Its invariant: a claim is made only for a pod that still lives, is owned by
// it, and one of the name that is not the pod's is left alone (KEP-1698).
package ephemeral

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/run"
)

// Controller reconciles pods with ephemeral volumes.
type Controller struct {
	kit    component.Kit
	pods   corelisters.PodLister
	claims corelisters.PersistentVolumeClaimLister
}

// New takes its informers from kit.
func New(kit component.Kit) (run.Controller, error) {
	core := kit.Informers.Core().V1()
	c := &Controller{kit: kit, pods: core.Pods().Lister(), claims: core.PersistentVolumeClaims().Lister()}
	return run.Controller{
		Name: "ephemeral-volume-controller",
		Reads: []run.Source{
			{Informer: core.Pods().Informer(), Keys: concerned, Changed: func(any, any) bool { return false }},
			{Informer: core.PersistentVolumeClaims().Informer(), Keys: run.OwnerKeys("Pod"), Changed: func(any, any) bool { return false }},
		},
		Writes: []string{"persistentvolumeclaims"}, Reconcile: c.reconcile,
	}, nil
}

func concerned(obj any) []run.Key {
	p, ok := obj.(*corev1.Pod)
	if !ok || p.DeletionTimestamp != nil {
		return nil
	}
	for i := range p.Spec.Volumes {
		if p.Spec.Volumes[i].Ephemeral != nil {
			return []run.Key{{Namespace: p.Namespace, Name: p.Name}}
		}
	}
	return nil
}

// ClaimsFor are the claims that a pod's ephemeral volumes need.
func ClaimsFor(p *corev1.Pod) []*corev1.PersistentVolumeClaim {
	var out []*corev1.PersistentVolumeClaim
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.Ephemeral == nil || v.Ephemeral.VolumeClaimTemplate == nil {
			continue
		}
		t := v.Ephemeral.VolumeClaimTemplate.DeepCopy()
		out = append(out, &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{
				Name: p.Name + "-" + v.Name, Namespace: p.Namespace, Labels: t.Labels, Annotations: t.Annotations,
				OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(p, corev1.SchemeGroupVersion.WithKind("Pod"))},
			},
			Spec: t.Spec,
		})
	}
	return out
}

var errStranger = errors.New("was not created for the pod")

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	p, err := c.pods.Pods(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read pod: %w", err)
	}
	if p.DeletionTimestamp != nil {
		return 0, nil
	}
	for _, want := range ClaimsFor(p) {
		have, err := c.claims.PersistentVolumeClaims(p.Namespace).Get(want.Name)
		if err == nil {
			if !metav1.IsControlledBy(have, p) {
				return 0, fmt.Errorf("claim %s: %w", want.Name, errStranger)
			}
			continue
		}
		_, err = c.kit.Client.CoreV1().PersistentVolumeClaims(p.Namespace).Create(ctx, want, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			c.kit.Recorder.Eventf(p, nil, corev1.EventTypeWarning, "FailedBinding", "Create", "ephemeral volume: create claim: %v", err)
			return 0, fmt.Errorf("create claim %s: %w", want.Name, err)
		}
	}
	return 0, nil
}
