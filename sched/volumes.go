package sched

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"skein.dev/skein/sched/decide"
)

// selectedNode tells a provisioner for which node a claim wants its volume.
const selectedNode = "volume.kubernetes.io/selected-node"

// claims looks at the pod's volume claims: bound ones restrict the nodes (by
// pod.Volumes), those that wait for their first consumer come back as
// pending, and anything else blocks the pod.
func (s *Scheduler) claims(pod *decide.Prepared) (pending []*corev1.PersistentVolumeClaim, blocked string) {
	if s.volumes == nil {
		return nil, ""
	}
	pod.Volumes = nil
	for i := range pod.Object.Spec.Volumes {
		v := &pod.Object.Spec.Volumes[i]
		var name string
		switch {
		case v.PersistentVolumeClaim != nil:
			name = v.PersistentVolumeClaim.ClaimName
		case v.Ephemeral != nil:
			name = pod.Object.Name + "-" + v.Name
		default:
			continue
		}
		claim, err := s.volumes.claims.PersistentVolumeClaims(pod.Object.Namespace).Get(name)
		if err != nil {
			return nil, fmt.Sprintf("persistentvolumeclaim %q not found", name)
		}
		if claim.DeletionTimestamp != nil {
			return nil, fmt.Sprintf("persistentvolumeclaim %q is being deleted", name)
		}
		if claim.Spec.VolumeName == "" {
			if !s.waits(claim) {
				return nil, "pod has unbound immediate PersistentVolumeClaims"
			}
			pending = append(pending, claim)
			continue
		}
		pv, err := s.volumes.volumes.Get(claim.Spec.VolumeName)
		if err != nil {
			return nil, "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
		}
		if pv.Spec.NodeAffinity != nil && pv.Spec.NodeAffinity.Required != nil {
			sel, err := nodeaffinity.NewNodeSelector(pv.Spec.NodeAffinity.Required)
			if err != nil {
				return nil, fmt.Sprintf("persistentvolume %q has a malformed node affinity", pv.Name)
			}
			pod.Volumes = append(pod.Volumes, sel)
		}
	}
	return pending, ""
}

// waits reports whether the claim is bound only once a pod has its node.
func (s *Scheduler) waits(claim *corev1.PersistentVolumeClaim) bool {
	if claim.Spec.StorageClassName == nil || *claim.Spec.StorageClassName == "" {
		return false
	}
	class, err := s.volumes.classes.Get(*claim.Spec.StorageClassName)
	return err == nil && class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

// provision names the node to the provisioners of pending claims; the pod is
// decided again when they are bound.
func (r *round) provision(ctx context.Context, it *item, node string, pending []*corev1.PersistentVolumeClaim) {
	for _, claim := range pending {
		if claim.Annotations[selectedNode] != "" {
			continue // a provisioner is at work
		}
		if err := r.selectNode(ctx, claim, node); err != nil {
			r.s.cfg.Kit.Log.WarnContext(ctx, "selecting a node for a claim failed", "claim", claim.Namespace+"/"+claim.Name, "err", err)
			r.mu.Lock()
			r.queue.retry(it, time.Now())
			r.mu.Unlock()
			return
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue.refuse(it, []string{decide.RuleVolumes}, time.Now())
}

func (r *round) selectNode(ctx context.Context, claim *corev1.PersistentVolumeClaim, node string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": claim.UID, "annotations": map[string]string{selectedNode: node},
	}})
	if err != nil {
		return fmt.Errorf("encode patch: %w", err)
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = r.s.cfg.Kit.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).
		Patch(call, claim.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("patch claim: %w", err)
	}
	return nil
}
