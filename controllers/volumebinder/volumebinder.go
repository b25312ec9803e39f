// Package volumebinder brings claims and volumes together.
//
// Its invariant: a volume refers to its claim before the claim refers to the
// volume, so no two claims get one volume, and a claim that was bound once
// never gets another volume.
//
// Volumes are made and deleted by their provisioners, which watch claims and
// released volumes themselves; there is no recycler.
package volumebinder

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/run"
)

// Controller reconciles claims, by namespace and name, and volumes, by name.
type Controller struct {
	kit     component.Kit
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.StorageClassLister
	own     *run.Ledger // of claims
	vols    *run.Ledger

	mu   sync.Mutex // guards the field below
	told map[run.Key]string
}

// news reports whether a claim's message differs from the one last told: a
// claim may wait for ever, and an idle mesh writes nothing.
func (c *Controller) news(key run.Key, message string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told[key] == message {
		return false
	}
	c.told[key] = message
	if message == "" {
		delete(c.told, key)
	}
	return true
}

func (c *Controller) reset() {
	c.own.Reset()
	c.vols.Reset()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = map[run.Key]string{}
}

// New takes its informers from kit.
func New(kit component.Kit) (run.Controller, error) {
	core, storage := kit.Informers.Core().V1(), kit.Informers.Storage().V1()
	c := &Controller{
		kit: kit, claims: core.PersistentVolumeClaims().Lister(), volumes: core.PersistentVolumes().Lister(), classes: storage.StorageClasses().Lister(),
		own: run.NewLedger(core.PersistentVolumeClaims().Informer()), vols: run.NewLedger(core.PersistentVolumes().Informer()),
	}
	c.reset()
	return run.Controller{
		Name: "persistentvolume-binder-controller",
		Reads: []run.Source{
			{Informer: core.PersistentVolumeClaims().Informer(), Keys: keysOfClaim},
			{Informer: core.PersistentVolumes().Informer(), Keys: c.keysOfVolume},
			{Informer: storage.StorageClasses().Informer(), Keys: c.pending},
		},
		Writes:    []string{"persistentvolumes", "persistentvolumes/status", "persistentvolumeclaims", "persistentvolumeclaims/status"},
		Workers:   1, // two claims must not find the same volume free
		Reconcile: c.reconcile,
		Reset:     c.reset,
	}, nil
}

// keysOfClaim are the claim and the volume it names.
func keysOfClaim(obj any) []run.Key {
	claim, ok := obj.(*corev1.PersistentVolumeClaim)
	if !ok {
		return nil
	}
	keys := []run.Key{{Namespace: claim.Namespace, Name: claim.Name}}
	if claim.Spec.VolumeName != "" {
		keys = append(keys, run.Key{Name: claim.Spec.VolumeName})
	}
	return keys
}

// keysOfVolume are the volume and the claims that may want it.
func (c *Controller) keysOfVolume(obj any) []run.Key {
	v, ok := obj.(*corev1.PersistentVolume)
	if !ok {
		return nil
	}
	keys := []run.Key{{Name: v.Name}}
	if ref := v.Spec.ClaimRef; ref != nil {
		return append(keys, run.Key{Namespace: ref.Namespace, Name: ref.Name})
	}
	return append(keys, c.pending(nil)...)
}

func (c *Controller) pending(any) []run.Key {
	all, err := c.claims.List(labels.Everything())
	if err != nil { // a lister over a store never fails
		return nil
	}
	var keys []run.Key
	for _, claim := range all {
		if claim.Status.Phase != corev1.ClaimBound {
			keys = append(keys, run.Key{Namespace: claim.Namespace, Name: claim.Name})
		}
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	settled := c.own.Settled(run.Key{}) && c.vols.Settled(run.Key{}) // every decision looks at all volumes
	if !settled {
		return run.Unsettled, nil
	}
	if key.Namespace == "" {
		return 0, c.volume(ctx, key.Name)
	}
	claim, err := c.claims.PersistentVolumeClaims(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		c.news(key, "")
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read claim: %w", err)
	}
	all, err := c.volumes.List(labels.Everything())
	if err != nil {
		return 0, fmt.Errorf("list volumes: %w", err)
	}
	plan := DecideClaim(claim, all, Classes{ByName: c.class, Default: c.defaultClass()})
	if plan.Bind != nil {
		return 0, c.bind(ctx, plan.Bind, claim)
	}
	if claim, err = c.ask(ctx, claim, plan); err != nil {
		return 0, err
	}
	if plan.Reason != "" && c.news(key, plan.Message) {
		kind := corev1.EventTypeNormal
		if plan.Warning {
			kind = corev1.EventTypeWarning
		}
		c.kit.Recorder.Eventf(claim, nil, kind, plan.Reason, "Bind", "%s", plan.Message)
	}
	return 0, c.claimStatus(ctx, claim, plan.Phase, nil)
}

func (c *Controller) class(name string) *storagev1.StorageClass {
	got, err := c.classes.Get(name)
	if err != nil {
		return nil
	}
	return got
}

// defaultClass is the youngest class marked as default, "" if there is none.
func (c *Controller) defaultClass() string {
	all, err := c.classes.List(labels.Everything())
	if err != nil { // as above
		return ""
	}
	var best *storagev1.StorageClass
	for _, s := range all {
		if s.Annotations["storageclass.kubernetes.io/is-default-class"] != "true" && s.Annotations["storageclass.beta.kubernetes.io/is-default-class"] != "true" {
			continue
		}
		if best == nil || s.CreationTimestamp.After(best.CreationTimestamp.Time) ||
			(s.CreationTimestamp.Equal(&best.CreationTimestamp) && s.Name < best.Name) {
			best = s
		}
	}
	if best == nil {
		return ""
	}
	return best.Name
}

// ask gives the claim its class or names its provisioner on it.
func (c *Controller) ask(ctx context.Context, claim *corev1.PersistentVolumeClaim, plan ClaimPlan) (*corev1.PersistentVolumeClaim, error) {
	up := claim.DeepCopy()
	if plan.Class != "" {
		up.Spec.StorageClassName = &plan.Class
	}
	if plan.Provision != "" {
		metav1.SetMetaDataAnnotation(&up.ObjectMeta, annProvisioner, plan.Provision)
		metav1.SetMetaDataAnnotation(&up.ObjectMeta, annProvisionerBeta, plan.Provision)
	}
	if equality.Semantic.DeepEqual(claim, up) {
		return claim, nil
	}
	return c.writeClaim(ctx, up)
}

// bind writes the volume first, then the claim, each only if it says
// something else.
func (c *Controller) bind(ctx context.Context, v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) error {
	up, dirty, err := storagehelpers.GetBindVolumeToClaim(v, claim)
	if err != nil {
		return fmt.Errorf("refer volume %s to its claim: %w", v.Name, err)
	}
	if dirty {
		if v, err = c.writeVolume(ctx, up); err != nil {
			return err
		}
	}
	if v, err = c.volumeStatus(ctx, v, corev1.VolumeBound, ""); err != nil {
		return err
	}
	next := claim.DeepCopy()
	if next.Spec.VolumeName != v.Name {
		next.Spec.VolumeName = v.Name
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, storagehelpers.AnnBoundByController, "yes")
	}
	metav1.SetMetaDataAnnotation(&next.ObjectMeta, storagehelpers.AnnBindCompleted, "yes")
	if !equality.Semantic.DeepEqual(claim, next) {
		if claim, err = c.writeClaim(ctx, next); err != nil {
			return err
		}
	}
	return c.claimStatus(ctx, claim, corev1.ClaimBound, v)
}

// volume cares for one volume.
func (c *Controller) volume(ctx context.Context, name string) error {
	v, err := c.volumes.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read volume: %w", err)
	}
	claim, err := c.claimOf(ctx, v)
	if err != nil {
		return err
	}
	plan := DecideVolume(v, claim)
	if plan.Unbind {
		up := v.DeepCopy()
		if metav1.HasAnnotation(v.ObjectMeta, storagehelpers.AnnBoundByController) {
			up.Spec.ClaimRef = nil
			delete(up.Annotations, storagehelpers.AnnBoundByController)
		} else {
			up.Spec.ClaimRef.UID = ""
		}
		if v, err = c.writeVolume(ctx, up); err != nil {
			return err
		}
	}
	_, err = c.volumeStatus(ctx, v, plan.Phase, plan.Message)
	return err
}

// claimOf is the claim that a volume refers to. What the informer does not
// show is asked of the API: data hangs on the answer.
func (c *Controller) claimOf(ctx context.Context, v *corev1.PersistentVolume) (*corev1.PersistentVolumeClaim, error) {
	ref := v.Spec.ClaimRef
	if ref == nil || ref.UID == "" {
		return nil, nil //nolint:nilnil // it refers to none
	}
	claim, err := c.claims.PersistentVolumeClaims(ref.Namespace).Get(ref.Name)
	if err == nil && claim.UID == ref.UID {
		return claim, nil
	}
	if v.Status.Phase == corev1.VolumeReleased || v.Status.Phase == corev1.VolumeFailed {
		return nil, nil //nolint:nilnil // that it is gone was found before
	}
	claim, err = c.kit.Client.CoreV1().PersistentVolumeClaims(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // gone
	}
	if err != nil {
		return nil, fmt.Errorf("read claim of volume %s: %w", v.Name, err)
	}
	return claim, nil
}
