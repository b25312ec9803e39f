package admit

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
)

// How long pods stay when their node is trouble. A confirmed dead peer's pods
// are replaced after seconds; a node that only reports trouble keeps them for
// upstream's five minutes.
const (
	unreachableSeconds = int64(5)
	notReadySeconds    = int64(300)
)

// defaultTolerations lets pods tolerate trouble of their node for a while. An
// update that names only tolerations of its own keeps these, as upstream's does.
func defaultTolerations(_ context.Context, a admission.Attributes) error {
	p := newPod(a)
	if p == nil {
		return nil
	}
	tolerates := func(key string) bool {
		for _, t := range p.Spec.Tolerations {
			if (t.Key == key || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "") {
				return true
			}
		}
		return false
	}
	notReady, unreachable := tolerates(corev1.TaintNodeNotReady), tolerates(corev1.TaintNodeUnreachable)
	add := func(key string, seconds int64) {
		p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{
			Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds,
		})
	}
	if !notReady {
		add(corev1.TaintNodeNotReady, notReadySeconds)
	}
	if !unreachable {
		add(corev1.TaintNodeUnreachable, unreachableSeconds)
	}
	return nil
}

// Priorities that exist without a PriorityClass object.
const (
	clusterCritical     = "system-cluster-critical"
	nodeCritical        = "system-node-critical"
	clusterCriticalRank = int32(2000000000)
	nodeCriticalRank    = int32(2000001000)
)

// SystemPriorities are the classes of system pods, as objects.
func SystemPriorities() []*schedulingv1.PriorityClass {
	return []*schedulingv1.PriorityClass{
		{
			ObjectMeta: metav1.ObjectMeta{Name: nodeCritical}, Value: nodeCriticalRank,
			Description: "Used for system critical pods that must not be moved from their current node.",
		},
		{
			ObjectMeta: metav1.ObjectMeta{Name: clusterCritical}, Value: clusterCriticalRank,
			Description: "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
		},
	}
}

// priority turns a pod's priority class into its number.
func (c Config) priority(_ context.Context, a admission.Attributes) error {
	p := newPod(a)
	if p == nil {
		return nil
	}
	rank, preempt := int32(0), corev1.PreemptLowerPriority
	switch name := p.Spec.PriorityClassName; name {
	case "":
	case clusterCritical:
		rank = clusterCriticalRank
	case nodeCritical:
		rank = nodeCriticalRank
	default:
		pc, ok := c.Reader.Get(schedulingv1.GroupName+"/priorityclasses", "", name).(*schedulingv1.PriorityClass)
		if !ok {
			return refuse(a, "no PriorityClass with name %v was found", name)
		}
		rank = pc.Value
		if pc.PreemptionPolicy != nil {
			preempt = *pc.PreemptionPolicy
		}
	}
	if p.Spec.Priority != nil && *p.Spec.Priority != rank {
		return refuse(a, "the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *p.Spec.Priority, rank)
	}
	if p.Spec.PreemptionPolicy != nil && *p.Spec.PreemptionPolicy != preempt {
		return refuse(a, "the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *p.Spec.PreemptionPolicy, preempt)
	}
	p.Spec.Priority, p.Spec.PreemptionPolicy = &rank, &preempt
	return nil
}
