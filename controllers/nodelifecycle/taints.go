package nodelifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/api/member"
)

// Health is what we make of a node's reachability.
type Health int

// Unknown means that nothing tells of a loss.
const (
	Unknown Health = iota
	Lost
)

func ofMember(s member.State) Health {
	switch s {
	case member.Dead, member.Left:
		return Lost
	default:
		return Unknown
	}
}

const (
	lostReason  = "NodeStatusUnknown"
	lostMessage = "Kubelet stopped posting node status."
)

// LostConditions are a lost node's conditions; changed reports whether they
// differ from have, which stays untouched.
func LostConditions(have []corev1.NodeCondition, now time.Time) (out []corev1.NodeCondition, changed bool) {
	at := metav1.NewTime(now)
	out = append(out, have...)
	for _, t := range []corev1.NodeConditionType{
		corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure,
	} {
		c := find(out, t)
		if c == nil {
			out = append(out, corev1.NodeCondition{
				Type: t, Status: corev1.ConditionUnknown, Reason: lostReason, Message: lostMessage,
				LastHeartbeatTime: at, LastTransitionTime: at,
			})
			changed = true
			continue
		}
		if c.Status != corev1.ConditionUnknown {
			c.Status, c.Reason, c.Message, c.LastTransitionTime = corev1.ConditionUnknown, lostReason, lostMessage, at
			changed = true
		}
	}
	return out, changed
}

func find(all []corev1.NodeCondition, t corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range all {
		if all[i].Type == t {
			return &all[i]
		}
	}
	return nil
}

func status(node *corev1.Node, t corev1.NodeConditionType) corev1.ConditionStatus {
	if c := find(node.Status.Conditions, t); c != nil {
		return c.Status
	}
	return ""
}

// massLoss is the share of lost nodes from which on nothing is evicted;
// upstream's unhealthy zone threshold.
const massLoss = 0.55

// MassLoss reports whether so many nodes are out of reach that the fault is
// more likely on our side.
func MassLoss(nodes []*corev1.Node) bool {
	lost := 0
	for _, n := range nodes {
		if status(n, corev1.NodeReady) == corev1.ConditionUnknown {
			lost++
		}
	}
	return len(nodes) > 0 && float64(lost) >= massLoss*float64(len(nodes))
}

// owned are the taint keys that conditions decide; others are users'.
func owned(key string) bool {
	switch key {
	case corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeMemoryPressure,
		corev1.TaintNodeDiskPressure, corev1.TaintNodePIDPressure, corev1.TaintNodeNetworkUnavailable,
		corev1.TaintNodeUnschedulable:
		return true
	}
	return false
}

// Taints are the node's taints as its conditions demand; those of users and
// the times of taints that stay are kept. Without execute no new NoExecute
// taint for unreachability is added.
func Taints(node *corev1.Node, execute bool, now time.Time) []corev1.Taint {
	var out []corev1.Taint
	want := demanded(node)
	for _, t := range node.Spec.Taints {
		if !owned(t.Key) || takes(&want, t) {
			out = append(out, t)
		}
	}
	for _, t := range want {
		if t.Effect == corev1.TaintEffectNoExecute && t.Key == corev1.TaintNodeUnreachable && !execute {
			continue
		}
		t.TimeAdded = &metav1.Time{Time: now}
		out = append(out, t)
	}
	return out
}

// takes removes t from want and reports whether it was there.
func takes(want *[]corev1.Taint, t corev1.Taint) bool {
	for i, w := range *want {
		if w.Key == t.Key && w.Effect == t.Effect {
			*want = append((*want)[:i], (*want)[i+1:]...)
			return true
		}
	}
	return false
}

func demanded(node *corev1.Node) []corev1.Taint {
	var out []corev1.Taint
	add := func(key string, effects ...corev1.TaintEffect) {
		for _, e := range effects {
			out = append(out, corev1.Taint{Key: key, Effect: e})
		}
	}
	switch status(node, corev1.NodeReady) {
	case corev1.ConditionFalse:
		add(corev1.TaintNodeNotReady, corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute)
	case corev1.ConditionUnknown:
		add(corev1.TaintNodeUnreachable, corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute)
	case corev1.ConditionTrue:
	default: // a node that has not reported yet
		add(corev1.TaintNodeNotReady, corev1.TaintEffectNoSchedule)
	}
	pressure := map[corev1.NodeConditionType]string{
		corev1.NodeMemoryPressure:     corev1.TaintNodeMemoryPressure,
		corev1.NodeDiskPressure:       corev1.TaintNodeDiskPressure,
		corev1.NodePIDPressure:        corev1.TaintNodePIDPressure,
		corev1.NodeNetworkUnavailable: corev1.TaintNodeNetworkUnavailable,
	}
	for _, c := range node.Status.Conditions { // in the conditions' order, not the map's
		if key, ok := pressure[c.Type]; ok && c.Status == corev1.ConditionTrue {
			add(key, corev1.TaintEffectNoSchedule)
		}
	}
	if node.Spec.Unschedulable {
		add(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
	}
	return out
}

// gains reports whether want has a NoExecute taint of key that have lacks.
func gains(have, want []corev1.Taint, key string) bool {
	return !executes(have, key) && executes(want, key)
}

func executes(all []corev1.Taint, key string) bool {
	for _, t := range all {
		if t.Key == key && t.Effect == corev1.TaintEffectNoExecute {
			return true
		}
	}
	return false
}
