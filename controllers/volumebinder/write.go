package volumebinder

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/controllers/run"
)

func (c *Controller) writeVolume(ctx context.Context, up *corev1.PersistentVolume) (*corev1.PersistentVolume, error) {
	got, err := c.kit.Client.CoreV1().PersistentVolumes().Update(ctx, up, metav1.UpdateOptions{})
	if err != nil {
		return nil, fmt.Errorf("write volume %s: %w", up.Name, err)
	}
	c.vols.Wrote(run.Key{}, got)
	return got, nil
}

func (c *Controller) volumeStatus(ctx context.Context, v *corev1.PersistentVolume, phase corev1.PersistentVolumePhase, message string) (*corev1.PersistentVolume, error) {
	if v.Status.Phase == phase && v.Status.Message == message {
		return v, nil
	}
	up := v.DeepCopy()
	up.Status.Phase, up.Status.Message = phase, message
	got, err := c.kit.Client.CoreV1().PersistentVolumes().UpdateStatus(ctx, up, metav1.UpdateOptions{})
	if err != nil {
		return nil, fmt.Errorf("write phase of volume %s: %w", v.Name, err)
	}
	c.vols.Wrote(run.Key{}, got)
	return got, nil
}

func (c *Controller) writeClaim(ctx context.Context, up *corev1.PersistentVolumeClaim) (*corev1.PersistentVolumeClaim, error) {
	got, err := c.kit.Client.CoreV1().PersistentVolumeClaims(up.Namespace).Update(ctx, up, metav1.UpdateOptions{})
	if err != nil {
		return nil, fmt.Errorf("write claim %s/%s: %w", up.Namespace, up.Name, err)
	}
	c.own.Wrote(run.Key{}, got)
	return got, nil
}

// claimStatus writes the phase and, when the claim has just been bound, what
// its volume is; later changes of size are the resizers'.
func (c *Controller) claimStatus(ctx context.Context, claim *corev1.PersistentVolumeClaim, phase corev1.PersistentVolumeClaimPhase, v *corev1.PersistentVolume) error {
	up := claim.DeepCopy()
	up.Status.Phase = phase
	switch {
	case v == nil && phase != corev1.ClaimBound:
		up.Status.AccessModes, up.Status.Capacity = nil, nil
	case v != nil:
		up.Status.AccessModes = v.Spec.AccessModes
		if claim.Status.Phase != corev1.ClaimBound || up.Status.Capacity == nil {
			up.Status.Capacity = v.Spec.Capacity
		}
		up.Status.CurrentVolumeAttributesClassName = v.Spec.VolumeAttributesClassName
	}
	if equality.Semantic.DeepEqual(claim.Status, up.Status) {
		return nil
	}
	got, err := c.kit.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).UpdateStatus(ctx, up, metav1.UpdateOptions{})
	if err != nil {
		return fmt.Errorf("write phase of claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	c.own.Wrote(run.Key{}, got)
	return nil
}
