package decide

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// taints refuses nodes with a NoSchedule or NoExecute taint that the pod does
// not tolerate.
func taints(_ *Snapshot, p *Prepared) filter {
	why := one(ReasonTaint)
	return func(n *Node) []string {
		for i := range n.taints {
			t := &n.taints[i]
			if t.Effect != corev1.TaintEffectPreferNoSchedule && !tolerates(p.Object.Spec.Tolerations, t) {
				return why
			}
		}
		return nil
	}
}

func tolerates(all []corev1.Toleration, t *corev1.Taint) bool {
	for i := range all {
		if matches(&all[i], t) {
			return true
		}
	}
	return false
}

func matches(tol *corev1.Toleration, t *corev1.Taint) bool {
	if (tol.Effect != "" && tol.Effect != t.Effect) || (tol.Key != "" && tol.Key != t.Key) {
		return false
	}
	switch tol.Operator {
	case "", corev1.TolerationOpEqual:
		return tol.Value == t.Value
	case corev1.TolerationOpExists:
		return true
	case corev1.TolerationOpLt, corev1.TolerationOpGt:
		have, err := strconv.ParseInt(t.Value, 10, 64)
		want, err2 := strconv.ParseInt(tol.Value, 10, 64)
		if err != nil || err2 != nil {
			return false
		}
		return (tol.Operator == corev1.TolerationOpLt && have < want) || (tol.Operator == corev1.TolerationOpGt && have > want)
	}
	return false
}
