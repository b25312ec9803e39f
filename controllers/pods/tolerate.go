package pods

import corev1 "k8s.io/api/core/v1"

// Tolerates reports whether one of the tolerations bears the taint.
func Tolerates(all []corev1.Toleration, t *corev1.Taint) bool {
	for i := range all {
		tol := &all[i]
		if (tol.Effect != "" && tol.Effect != t.Effect) || (tol.Key != "" && tol.Key != t.Key) {
			continue
		}
		switch tol.Operator {
		case "", corev1.TolerationOpEqual:
			if tol.Value == t.Value {
				return true
			}
		case corev1.TolerationOpExists:
			return true
		default:
		}
	}
	return false
}
