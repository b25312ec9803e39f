package statefulset

import (
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func claimName(set *appsv1.StatefulSet, t *corev1.PersistentVolumeClaim, ordinal int) string {
	return t.Name + "-" + podName(set, ordinal)
}

// claimsFor are the claims that the pod of an ordinal needs.
func claimsFor(set *appsv1.StatefulSet, ordinal int) []*corev1.PersistentVolumeClaim {
	out := make([]*corev1.PersistentVolumeClaim, 0, len(set.Spec.VolumeClaimTemplates))
	for i := range set.Spec.VolumeClaimTemplates {
		c := set.Spec.VolumeClaimTemplates[i].DeepCopy()
		c.Name, c.Namespace = claimName(set, &set.Spec.VolumeClaimTemplates[i], ordinal), set.Namespace
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		if set.Spec.Selector != nil {
			maps.Copy(c.Labels, set.Spec.Selector.MatchLabels)
		}
		c.Status = corev1.PersistentVolumeClaimStatus{}
		out = append(out, c)
	}
	return out
}

// retention says when claims go: with the set, with a pod that is scaled away.
func retention(set *appsv1.StatefulSet) (deleted, scaled bool) {
	p := set.Spec.PersistentVolumeClaimRetentionPolicy
	if p == nil {
		return false, false
	}
	return p.WhenDeleted == appsv1.DeletePersistentVolumeClaimRetentionPolicyType,
		p.WhenScaled == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
}

func names(ref *metav1.OwnerReference, obj metav1.Object, apiVersion, kind string) bool {
	return ref.APIVersion == apiVersion && ref.Kind == kind && ref.Name == obj.GetName()
}

// Stale reports whether the claim belongs to an earlier set or pod of the same
// name: it is about to be collected and must not be touched nor used.
func Stale(claim *corev1.PersistentVolumeClaim, set *appsv1.StatefulSet, pod *corev1.Pod) bool {
	for i := range claim.OwnerReferences {
		ref := &claim.OwnerReferences[i]
		if names(ref, set, kind().GroupVersion().String(), kind().Kind) && ref.UID != set.UID {
			return true
		}
		if names(ref, pod, "v1", "Pod") && ref.UID != pod.UID {
			return true
		}
	}
	return false
}

// Owners are the owners that the retention policy asks of a claim
// (KEP-1847), and whether they differ from those it has. Owning is how the
// garbage collector is told: by the set, the claim goes with the set; by a
// pod that is scaled away, with the pod.
func Owners(claim *corev1.PersistentVolumeClaim, set *appsv1.StatefulSet, pod *corev1.Pod) (refs []metav1.OwnerReference, changed bool) {
	if Stale(claim, set, pod) {
		return claim.OwnerReferences, false
	}
	var ours, others, want []metav1.OwnerReference
	foreign := false
	for _, ref := range claim.OwnerReferences {
		if names(&ref, set, kind().GroupVersion().String(), kind().Kind) || names(&ref, pod, "v1", "Pod") {
			ours = append(ours, ref)
			continue
		}
		others = append(others, ref)
		foreign = foreign || (ref.Controller != nil && *ref.Controller)
	}
	deleted, scaled := retention(set)
	condemned := !inRange(set, Ordinal(set, pod))
	if !foreign {
		if deleted && (!scaled || !condemned) {
			want = append(want, *metav1.NewControllerRef(set, kind()))
		}
		if scaled && condemned {
			want = append(want, *metav1.NewControllerRef(pod, corev1.SchemeGroupVersion.WithKind("Pod")))
		}
	}
	if equality.Semantic.DeepEqual(ours, want) || (len(ours) == 0 && len(want) == 0) {
		return claim.OwnerReferences, false
	}
	return slices.Concat(others, want), true
}
