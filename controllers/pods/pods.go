// Package pods is what the controllers that own pods share: making a pod from
// a template, reading how far it is, choosing whom to delete, claiming.
//
// Its invariant: everything but [Claim] is a pure function of its arguments.
package pods

import (
	"encoding/json"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"
)

// maxNameLength leaves room for the suffix in a DNS subdomain of 63.
const maxNameLength = 58

// Name returns base with five random characters, as the API server would
// make it of a generateName. The caller knows the name before the create, so
// a create of unknown outcome can be looked up.
func Name(base string) string {
	if len(base) > maxNameLength {
		base = base[:maxNameLength]
	}
	return base + rand.String(5)
}

// FromTemplate is a pod of owner's template, named after owner.
func FromTemplate(owner metav1.Object, gvk schema.GroupVersionKind, template *corev1.PodTemplateSpec) *corev1.Pod {
	base := owner.GetName() + "-"
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:            Name(base),
			GenerateName:    base,
			Namespace:       owner.GetNamespace(),
			Labels:          maps.Clone(template.Labels),
			Annotations:     maps.Clone(template.Annotations),
			Finalizers:      slices.Clone(template.Finalizers),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, gvk)},
		},
	}
	template.Spec.DeepCopyInto(&pod.Spec)
	return pod
}

// Hash is a short name for a template's content, safe in names and labels.
// collision is added by an owner that met another template of the same hash.
func Hash(template *corev1.PodTemplateSpec, collision *int32) string {
	h := fnv.New32a()
	b, err := json.Marshal(template)
	if err != nil { // a template that came through the API always marshals
		panic(err)
	}
	_, _ = h.Write(b) // a hash never fails
	if collision != nil {
		_, _ = h.Write(strconv.AppendInt(nil, int64(*collision), 10))
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}

// Active reports whether the pod still counts as a replica: neither finished
// nor being deleted.
func Active(p *corev1.Pod) bool { return !Finished(p) && p.DeletionTimestamp == nil }

// Finished reports whether all of the pod's containers have ended for good.
func Finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// Condition returns the pod's condition of a type, or nil.
func Condition(p *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == t {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// Ready reports the Ready condition.
func Ready(p *corev1.Pod) bool {
	c := Condition(p, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// Available reports whether the pod has been ready for minReady, and if it is
// ready but not yet for so long, how long is still missing.
func Available(p *corev1.Pod, minReady time.Duration, now time.Time) (ok bool, missing time.Duration) {
	c := Condition(p, corev1.PodReady)
	if c == nil || c.Status != corev1.ConditionTrue {
		return false, 0
	}
	if minReady == 0 {
		return true, 0
	}
	if c.LastTransitionTime.IsZero() {
		return false, minReady
	}
	if left := minReady - now.Sub(c.LastTransitionTime.Time); left > 0 {
		return false, left
	}
	return true, 0
}
