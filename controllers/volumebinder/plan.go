package volumebinder

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"
)

// noProvisioner is the provisioner of classes whose volumes are made by hand.
const noProvisioner = "kubernetes.io/no-provisioner"

// The annotation by which external provisioners find their claims, and its
// older form, which many still read.
const (
	annProvisioner     = "volume.kubernetes.io/storage-provisioner"
	annProvisionerBeta = "volume.beta.kubernetes.io/storage-provisioner"
)

// ClaimPlan is what is to be done about a claim.
type ClaimPlan struct {
	Bind      *corev1.PersistentVolume // to this volume; nil: not now
	Phase     corev1.PersistentVolumeClaimPhase
	Class     string // to be given to the claim, which names none
	Provision string // the provisioner to be asked
	Reason    string // of an Event; "": none
	Message   string
	Warning   bool
}

// Classes are the storage classes: by name, and the default one's name.
type Classes struct {
	ByName  func(string) *storagev1.StorageClass
	Default string
}

// DecideClaim plans the next step of a claim among all volumes.
func DecideClaim(claim *corev1.PersistentVolumeClaim, volumes []*corev1.PersistentVolume, classes Classes) ClaimPlan {
	var named *corev1.PersistentVolume
	for _, v := range volumes {
		if v.Name == claim.Spec.VolumeName {
			named = v
		}
	}
	if metav1.HasAnnotation(claim.ObjectMeta, storagehelpers.AnnBindCompleted) {
		return bound(claim, named)
	}
	if claim.Spec.VolumeName != "" {
		return wanted(claim, named)
	}
	return unbound(claim, volumes, classes)
}

// bound cares for a claim whose binding was complete: it never gets another
// volume, because its data was there.
func bound(claim *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) ClaimPlan {
	lost := ClaimPlan{Phase: corev1.ClaimLost, Reason: "ClaimLost", Warning: true}
	switch {
	case claim.Spec.VolumeName == "":
		lost.Message = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"
	case v == nil:
		lost.Message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
	case v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID == claim.UID:
		return ClaimPlan{Bind: v, Phase: corev1.ClaimBound}
	default:
		lost.Reason, lost.Message = "ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly"
	}
	return lost
}

// wanted cares for a claim that names its volume.
func wanted(claim *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) ClaimPlan {
	p := ClaimPlan{Phase: corev1.ClaimPending}
	switch {
	case v == nil: // it may come
	case v.Spec.ClaimRef == nil:
		if why := mismatch(v, claim); why != "" {
			p.Reason, p.Message, p.Warning = "VolumeMismatch", fmt.Sprintf("Cannot bind to requested volume %q: %s", v.Name, why), true
			return p
		}
		return ClaimPlan{Bind: v, Phase: corev1.ClaimBound}
	case storagehelpers.IsVolumeBoundToClaim(v, claim):
		return ClaimPlan{Bind: v, Phase: corev1.ClaimBound}
	default:
		p.Reason, p.Message, p.Warning = "FailedBinding", fmt.Sprintf("volume %q already bound to a different claim.", v.Name), true
	}
	return p
}

// mismatch says why the volume does not do for the claim.
func mismatch(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) string {
	have, want := v.Spec.Capacity[corev1.ResourceStorage], claim.Spec.Resources.Requests[corev1.ResourceStorage]
	switch {
	case have.Cmp(want) < 0:
		return "requested PV is too small"
	case storagehelpers.GetPersistentVolumeClass(v) != storagehelpers.GetPersistentVolumeClaimClass(claim):
		return "storageClassName does not match"
	case storagehelpers.CheckVolumeModeMismatches(&claim.Spec, &v.Spec):
		return "incompatible volumeMode"
	case !storagehelpers.CheckAccessModes(claim, v):
		return "incompatible accessMode"
	default:
		return ""
	}
}

// unbound looks for a volume, or for who makes one.
func unbound(claim *corev1.PersistentVolumeClaim, volumes []*corev1.PersistentVolume, classes Classes) ClaimPlan {
	p := ClaimPlan{Phase: corev1.ClaimPending}
	name := storagehelpers.GetPersistentVolumeClaimClass(claim)
	class := classes.ByName(name)
	delayed := class != nil && class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
	var able []*corev1.PersistentVolume
	for _, v := range volumes { // the helper leaves access modes to who knows the node
		if storagehelpers.CheckAccessModes(claim, v) || storagehelpers.IsVolumeBoundToClaim(v, claim) {
			able = append(able, v)
		}
	}
	v, err := storagehelpers.FindMatchingVolume(claim, able, nil, nil, delayed, true)
	switch {
	case err != nil:
		p.Reason, p.Message, p.Warning = "FailedBinding", err.Error(), true
	case v != nil:
		return ClaimPlan{Bind: v, Phase: corev1.ClaimBound}
	case !storagehelpers.PersistentVolumeClaimHasClass(claim) && classes.Default != "":
		p.Class = classes.Default
	case delayed && !storagehelpers.IsDelayBindingProvisioning(claim):
		p.Reason, p.Message = "WaitForFirstConsumer", "waiting for first consumer to be created before binding"
	case name == "":
		p.Reason, p.Message = "FailedBinding", "no persistent volumes available for this claim and no storage class is set"
	case class == nil:
		p.Reason, p.Message, p.Warning = "ProvisioningFailed", fmt.Sprintf("storageclass.storage.k8s.io %q not found", name), true
	case class.Provisioner == noProvisioner:
		p.Reason, p.Message = "FailedBinding", "no persistent volumes available for this claim and its storage class makes none"
	default:
		p.Provision = class.Provisioner
		p.Reason = "ExternalProvisioning"
		p.Message = fmt.Sprintf("Waiting for a volume to be created either by the external provisioner '%s' or manually by the system administrator. "+
			"If volume creation is delayed, please verify that the provisioner is running and correctly registered.", class.Provisioner)
	}
	return p
}

// VolumePlan is what is to be done about a volume.
type VolumePlan struct {
	Phase   corev1.PersistentVolumePhase
	Unbind  bool // let the claim go
	Message string
}

// DecideVolume plans the next step of a volume; claim is the one it refers
// to, nil if that is gone for sure.
func DecideVolume(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) VolumePlan {
	ref := v.Spec.ClaimRef
	switch {
	case ref == nil || ref.UID == "":
		return VolumePlan{Phase: corev1.VolumeAvailable}
	case claim == nil || claim.UID != ref.UID:
		if v.Status.Phase == corev1.VolumeFailed {
			return VolumePlan{Phase: corev1.VolumeFailed, Message: v.Status.Message}
		}
		return VolumePlan{Phase: corev1.VolumeReleased}
	case claim.Spec.VolumeName == "": // the claim completes the binding
		return VolumePlan{Phase: v.Status.Phase, Message: v.Status.Message}
	case claim.Spec.VolumeName == v.Name:
		return VolumePlan{Phase: corev1.VolumeBound}
	case metav1.HasAnnotation(v.ObjectMeta, storagehelpers.AnnDynamicallyProvisioned) && v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete:
		return VolumePlan{Phase: corev1.VolumeReleased} // made for a claim that took another
	default:
		return VolumePlan{Phase: corev1.VolumeAvailable, Unbind: true}
	}
}
