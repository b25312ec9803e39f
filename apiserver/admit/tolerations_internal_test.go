package admit

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
)

func TestAnUpdateThatNamesOneTolerationKeepsTheDefaultOnes(t *testing.T) {
	kind, resource := corev1.SchemeGroupVersion.WithKind("Pod"), corev1.SchemeGroupVersion.WithResource("pods")
	for _, op := range []admission.Operation{admission.Create, admission.Update} {
		p := &corev1.Pod{Spec: corev1.PodSpec{Tolerations: []corev1.Toleration{{Key: "own", Operator: corev1.TolerationOpExists}}}}
		a := admission.NewAttributesRecord(p, &corev1.Pod{}, kind, "ns", "p", resource, "", op, nil, false, nil)
		if err := defaultTolerations(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		var keys []string
		for _, toleration := range p.Spec.Tolerations {
			keys = append(keys, toleration.Key)
		}
		if len(keys) != 3 || keys[0] != "own" || keys[1] != corev1.TaintNodeNotReady || keys[2] != corev1.TaintNodeUnreachable {
			t.Errorf("%s: got tolerations of %v", op, keys)
		}
	}
}
