package protection

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/run"
)

// AttributesFinalizer is upstream's.
const AttributesFinalizer = "kubernetes.io/vac-protection"

const byAttributes = "attributes"

// Attributes protects VolumeAttributesClasses that a claim or a volume has,
// had last, or is to get (KEP-3751).
type Attributes struct {
	kit     component.Kit
	classes storagelisters.VolumeAttributesClassLister
	claims  cache.SharedIndexInformer
	volumes cache.SharedIndexInformer
}

// NewAttributes takes its informers from kit.
func NewAttributes(kit component.Kit) (run.Controller, error) {
	core, classes := kit.Informers.Core().V1(), kit.Informers.Storage().V1().VolumeAttributesClasses()
	c := &Attributes{
		kit: kit, classes: classes.Lister(),
		claims: core.PersistentVolumeClaims().Informer(), volumes: core.PersistentVolumes().Informer(),
	}
	reads := []run.Source{{Informer: classes.Informer()}}
	for inf, names := range map[cache.SharedIndexInformer]func(any) []string{c.claims: classesOfClaim, c.volumes: classesOfVolume} {
		if err := run.IndexBy(inf, byAttributes, names); err != nil {
			return run.Controller{}, err
		}
		reads = append(reads, run.Source{Informer: inf, Keys: keysOf(names), Changed: func(before, after any) bool {
			return !slices.Equal(names(before), names(after))
		}})
	}
	return run.Controller{
		Name: "volumeattributesclass-protection-controller", Reads: reads,
		Writes: []string{"volumeattributesclasses.storage.k8s.io"}, Reconcile: c.reconcile,
	}, nil
}

func classesOfClaim(obj any) []string {
	claim, ok := obj.(*corev1.PersistentVolumeClaim)
	if !ok {
		return nil
	}
	target := (*string)(nil)
	if m := claim.Status.ModifyVolumeStatus; m != nil {
		target = &m.TargetVolumeAttributesClassName
	}
	return named(claim.Spec.VolumeAttributesClassName, claim.Status.CurrentVolumeAttributesClassName, target)
}

func classesOfVolume(obj any) []string {
	pv, ok := obj.(*corev1.PersistentVolume)
	if !ok {
		return nil
	}
	return named(pv.Spec.VolumeAttributesClassName)
}

// named are the different names that are given.
func named(all ...*string) []string {
	var out []string
	for _, n := range all {
		if n != nil && *n != "" && !slices.Contains(out, *n) {
			out = append(out, *n)
		}
	}
	return out
}

func keysOf(names func(any) []string) func(any) []run.Key {
	return func(obj any) []run.Key {
		var keys []run.Key
		for _, n := range names(obj) {
			keys = append(keys, run.Key{Name: n})
		}
		return keys
	}
}

func (c *Attributes) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	class, err := c.classes.Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read attributes class: %w", err)
	}
	up := class.DeepCopy()
	switch has := slices.Contains(class.Finalizers, AttributesFinalizer); {
	case class.DeletionTimestamp == nil && !has: // made before admission added it
		up.Finalizers = append(up.Finalizers, AttributesFinalizer)
	case class.DeletionTimestamp != nil && has:
		used, err := c.used(ctx, key.Name)
		if err != nil || used { // the change of the last user will wake us
			return 0, err
		}
		up.Finalizers = slices.DeleteFunc(up.Finalizers, func(f string) bool { return f == AttributesFinalizer })
	default:
		return 0, nil
	}
	return 0, c.write(ctx, up)
}

// used asks the informers first, which is cheap, and then the API.
func (c *Attributes) used(ctx context.Context, name string) (bool, error) {
	if len(run.By(c.claims, byAttributes, name))+len(run.By(c.volumes, byAttributes, name)) > 0 {
		return true, nil
	}
	claims, err := c.kit.Client.CoreV1().PersistentVolumeClaims(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, fmt.Errorf("list claims: %w", err)
	}
	volumes, err := c.kit.Client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, fmt.Errorf("list volumes: %w", err)
	}
	return slices.ContainsFunc(claims.Items, func(o corev1.PersistentVolumeClaim) bool { return slices.Contains(classesOfClaim(&o), name) }) ||
		slices.ContainsFunc(volumes.Items, func(o corev1.PersistentVolume) bool { return slices.Contains(classesOfVolume(&o), name) }), nil
}

func (c *Attributes) write(ctx context.Context, up *storagev1.VolumeAttributesClass) error {
	_, err := c.kit.Client.StorageV1().VolumeAttributesClasses().Update(ctx, up, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update finalizers of attributes class %s: %w", up.Name, err)
	}
	return nil
}
