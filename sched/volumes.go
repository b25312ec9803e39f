package sched

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"skein.dev/skein/sched/decide"
)

// selectedNode tells a provisioner for which node a claim wants its volume.
const selectedNode = "volume.kubernetes.io/selected-node"

// claims looks at the pod's volume claims: bound ones restrict the nodes (by
// pod.Volumes), those that wait for their first consumer come back as pending
// (by pod.Waiting they restrict them too), and anything else blocks the pod.
func (s *Scheduler) claims(pod *decide.Prepared) (pending []*corev1.PersistentVolumeClaim, blocked string) {
	if s.volumes == nil {
		return nil, ""
	}
	pod.Volumes, pod.Waiting = nil, nil
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
			class := s.waits(claim)
			if class == nil {
				return nil, "pod has unbound immediate PersistentVolumeClaims"
			}
			pending = append(pending, claim)
			pod.Waiting = append(pod.Waiting, s.waiting(claim, class))
			continue
		}
		pv, err := s.volumes.volumes.Get(claim.Spec.VolumeName)
		if err != nil {
			return nil, "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
		}
		sel, err := reach(pv)
		if err != nil {
			return nil, fmt.Sprintf("persistentvolume %q has a malformed node affinity", pv.Name)
		}
		if sel != nil {
			pod.Volumes = append(pod.Volumes, sel)
		}
	}
	return pending, ""
}

// reach is where a volume can be used, nil: everywhere.
func reach(pv *corev1.PersistentVolume) (*nodeaffinity.NodeSelector, error) {
	if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return nil, nil //nolint:nilnil // documented: everywhere
	}
	return nodeaffinity.NewNodeSelector(pv.Spec.NodeAffinity.Required) //nolint:wrapcheck // the caller names the volume
}

// waits returns the class of a claim that is bound only once a pod has its
// node, nil for other claims.
func (s *Scheduler) waits(claim *corev1.PersistentVolumeClaim) *storagev1.StorageClass {
	if claim.Spec.StorageClassName == nil || *claim.Spec.StorageClassName == "" {
		return nil
	}
	class, err := s.volumes.classes.Get(*claim.Spec.StorageClassName)
	if err != nil || class.VolumeBindingMode == nil || *class.VolumeBindingMode != storagev1.VolumeBindingWaitForFirstConsumer {
		return nil
	}
	return class
}

// noProvisioner is the provisioner of classes whose volumes are made by hand.
const noProvisioner = "kubernetes.io/no-provisioner"

// waiting finds what a claim may be bound to, the smallest first.
func (s *Scheduler) waiting(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) decide.Waiting {
	w := decide.Waiting{Provisions: class.Provisioner != noProvisioner, Topology: topology(class)}
	all, err := s.volumes.volumes.List(labels.Everything())
	if err != nil { // a lister over a store never fails
		return w
	}
	slices.SortFunc(all, func(a, b *corev1.PersistentVolume) int {
		x, y := a.Spec.Capacity[corev1.ResourceStorage], b.Spec.Capacity[corev1.ResourceStorage]
		return cmp.Or(x.Cmp(y), strings.Compare(a.Name, b.Name))
	})
	for _, pv := range all {
		if !fits(pv, claim) {
			continue
		}
		if sel, err := reach(pv); err == nil {
			w.Candidates = append(w.Candidates, decide.Candidate{Name: pv.Name, Node: sel})
		}
	}
	return w
}

// fits reports whether a volume is free for the claim, or kept for it, and is
// what it asks for.
func fits(pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) bool {
	if pv.DeletionTimestamp != nil || pv.Spec.StorageClassName != *claim.Spec.StorageClassName {
		return false
	}
	if r := pv.Spec.ClaimRef; r != nil {
		return r.Namespace == claim.Namespace && r.Name == claim.Name && (r.UID == "" || r.UID == claim.UID)
	}
	have, want := pv.Spec.Capacity[corev1.ResourceStorage], claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if pv.Status.Phase != corev1.VolumeAvailable || have.Cmp(want) < 0 || mode(pv.Spec.VolumeMode) != mode(claim.Spec.VolumeMode) {
		return false
	}
	for _, m := range claim.Spec.AccessModes {
		if !slices.Contains(pv.Spec.AccessModes, m) {
			return false
		}
	}
	sel, err := metav1.LabelSelectorAsSelector(claim.Spec.Selector)
	return claim.Spec.Selector == nil || (err == nil && sel.Matches(labels.Set(pv.Labels)))
}

func mode(m *corev1.PersistentVolumeMode) corev1.PersistentVolumeMode {
	if m == nil {
		return corev1.PersistentVolumeFilesystem
	}
	return *m
}

// topology is where the class may make volumes, nil: everywhere.
func topology(class *storagev1.StorageClass) *nodeaffinity.NodeSelector {
	if len(class.AllowedTopologies) == 0 {
		return nil
	}
	sel := &corev1.NodeSelector{}
	for _, t := range class.AllowedTopologies {
		var term corev1.NodeSelectorTerm
		for _, e := range t.MatchLabelExpressions {
			term.MatchExpressions = append(term.MatchExpressions, corev1.NodeSelectorRequirement{Key: e.Key, Operator: corev1.NodeSelectorOpIn, Values: e.Values})
		}
		sel.NodeSelectorTerms = append(sel.NodeSelectorTerms, term)
	}
	out, err := nodeaffinity.NewNodeSelector(sel)
	if err != nil { // validation refuses it
		return nil
	}
	return out
}

// settle gives each pending claim its volume: a free one is bound to it, and
// for one that is to be made the node is named to the provisioner. The pod is
// decided again when all are bound.
func (r *round) settle(ctx context.Context, it *item, pod *decide.Prepared, n *decide.Node, pending []*corev1.PersistentVolumeClaim) {
	chosen, ok := decide.Assign(n, pod)
	var err error
	for i := 0; ok && err == nil && i < len(pending); i++ {
		switch claim := pending[i]; {
		case chosen[i] != "":
			err = r.reserve(ctx, claim, chosen[i])
		case claim.Annotations[selectedNode] == "": // else a provisioner is at work
			err = r.selectNode(ctx, claim, n.Name)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.s.cfg.Kit.Log.WarnContext(ctx, "binding a pod's claims failed", "pod", name(pod.Object), "err", err)
		r.queue.retry(it, time.Now())
		return
	}
	r.queue.refuse(it, []string{decide.RuleVolumes}, time.Now())
}

// reserve binds a volume to the claim; the volume binder completes the claim.
func (r *round) reserve(ctx context.Context, claim *corev1.PersistentVolumeClaim, volume string) error {
	pv, err := r.s.volumes.volumes.Get(volume)
	if err != nil {
		return fmt.Errorf("read volume: %w", err)
	}
	if ref := pv.Spec.ClaimRef; ref != nil && ref.UID == claim.UID {
		return nil // reserved before; the binder is at work
	}
	up := pv.DeepCopy()
	if up.Spec.ClaimRef == nil {
		if up.Annotations == nil {
			up.Annotations = map[string]string{}
		}
		up.Annotations["pv.kubernetes.io/bound-by-controller"] = "yes"
	}
	up.Spec.ClaimRef = &corev1.ObjectReference{
		Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID, ResourceVersion: claim.ResourceVersion,
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := r.s.cfg.Kit.Client.CoreV1().PersistentVolumes().Update(call, up, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("bind volume %s: %w", volume, err)
	}
	return nil
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
