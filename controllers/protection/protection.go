// Package protection keeps volumes, claims and attributes classes from being
// deleted while they are used.
//
// Its invariant: the finalizer goes only from an object that is being deleted
// and that the API, not only the informer, shows to be out of use.
package protection

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/pods"
	"skein.dev/skein/controllers/run"
)

// The finalizers, upstream's.
const (
	ClaimFinalizer  = "kubernetes.io/pvc-protection"
	VolumeFinalizer = "kubernetes.io/pv-protection"
)

const byClaim = "claim"

// Claims protects PersistentVolumeClaims that pods use.
type Claims struct {
	kit    component.Kit
	claims corelisters.PersistentVolumeClaimLister
	pods   cache.SharedIndexInformer
}

// NewClaims takes its informers from kit.
func NewClaims(kit component.Kit) (run.Controller, error) {
	core := kit.Informers.Core().V1()
	c := &Claims{kit: kit, claims: core.PersistentVolumeClaims().Lister(), pods: core.Pods().Informer()}
	if err := run.IndexBy(c.pods, byClaim, claimsOf); err != nil {
		return run.Controller{}, err
	}
	return run.Controller{
		Name: "persistentvolumeclaim-protection-controller",
		Reads: []run.Source{
			{Informer: core.PersistentVolumeClaims().Informer()},
			{Informer: c.pods, Keys: keysOfPod, Changed: func(before, after any) bool {
				a, ok := before.(*corev1.Pod)
				b, ok2 := after.(*corev1.Pod)
				return !ok || !ok2 || pods.Finished(a) != pods.Finished(b)
			}},
		},
		Writes:    []string{"persistentvolumeclaims"},
		Reconcile: c.reconcile,
	}, nil
}

// claimsOf names the claims that a pod uses, as namespace/name.
func claimsOf(obj any) []string {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return nil
	}
	var out []string
	for i := range p.Spec.Volumes {
		switch v := &p.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			out = append(out, p.Namespace+"/"+v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			out = append(out, p.Namespace+"/"+p.Name+"-"+v.Name)
		}
	}
	return out
}

func keysOfPod(obj any) []run.Key {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return nil
	}
	var keys []run.Key
	for _, n := range claimsOf(p) {
		keys = append(keys, run.Key{Namespace: p.Namespace, Name: n[len(p.Namespace)+1:]})
	}
	return keys
}

// uses reports whether a pod keeps its claims: it has a node, or will have
// one, and has not ended.
func uses(p *corev1.Pod) bool { return !pods.Finished(p) && p.Spec.NodeName != "" }

func (c *Claims) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	claim, err := c.claims.PersistentVolumeClaims(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read claim: %w", err)
	}
	has := slices.Contains(claim.Finalizers, ClaimFinalizer)
	if has == (claim.DeletionTimestamp == nil) {
		return 0, nil
	}
	up := claim.DeepCopy()
	if claim.DeletionTimestamp == nil { // made before admission added it
		up.Finalizers = append(up.Finalizers, ClaimFinalizer)
		return 0, c.write(ctx, up)
	}
	if !has {
		return 0, nil
	}
	used, err := c.used(ctx, key)
	if err != nil || used { // the pod's end will wake us
		return 0, err
	}
	up.Finalizers = slices.DeleteFunc(up.Finalizers, func(f string) bool { return f == ClaimFinalizer })
	return 0, c.write(ctx, up)
}

// used asks the informer first, which is cheap, and then the API.
func (c *Claims) used(ctx context.Context, key run.Key) (bool, error) {
	for _, o := range run.By(c.pods, byClaim, key.String()) {
		if p, ok := o.(*corev1.Pod); ok && uses(p) {
			return true, nil
		}
	}
	l, err := c.kit.Client.CoreV1().Pods(key.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, fmt.Errorf("list pods: %w", err)
	}
	return slices.ContainsFunc(l.Items, func(p corev1.Pod) bool {
		return uses(&p) && slices.Contains(claimsOf(&p), key.String())
	}), nil
}

func (c *Claims) write(ctx context.Context, up *corev1.PersistentVolumeClaim) error {
	_, err := c.kit.Client.CoreV1().PersistentVolumeClaims(up.Namespace).Update(ctx, up, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update finalizers of claim %s: %w", up.Name, err)
	}
	return nil
}

// Volumes protects PersistentVolumes that are bound.
type Volumes struct {
	kit     component.Kit
	volumes corelisters.PersistentVolumeLister
}

// NewVolumes takes its informer from kit.
func NewVolumes(kit component.Kit) (run.Controller, error) {
	volumes := kit.Informers.Core().V1().PersistentVolumes()
	c := &Volumes{kit: kit, volumes: volumes.Lister()}
	return run.Controller{
		Name: "persistentvolume-protection-controller", Reads: []run.Source{{Informer: volumes.Informer()}},
		Writes: []string{"persistentvolumes"}, Reconcile: c.reconcile,
	}, nil
}

func (c *Volumes) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	pv, err := c.volumes.Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read volume: %w", err)
	}
	has := slices.Contains(pv.Finalizers, VolumeFinalizer)
	up := pv.DeepCopy()
	switch {
	case pv.DeletionTimestamp == nil && !has:
		up.Finalizers = append(up.Finalizers, VolumeFinalizer)
	case pv.DeletionTimestamp != nil && has && pv.Status.Phase != corev1.VolumeBound:
		up.Finalizers = slices.DeleteFunc(up.Finalizers, func(f string) bool { return f == VolumeFinalizer })
	default:
		return 0, nil
	}
	_, err = c.kit.Client.CoreV1().PersistentVolumes().Update(ctx, up, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("update finalizers of volume %s: %w", up.Name, err)
	}
	return 0, nil
}
