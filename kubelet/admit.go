package kubelet

import (
	corev1 "k8s.io/api/core/v1"

	"skein.dev/skein/kubelet/lifecycle"
)

// admit says why this node cannot take the pod, nil if it can.
func (k *Kubelet) admit(pod *corev1.Pod) *lifecycle.Rejection {
	if os := pod.Spec.OS; os != nil && os.Name != corev1.Linux {
		return &lifecycle.Rejection{
			Reason: "PodOSNotSupported", Message: "Failed to admit pod as the OS field doesn't match node OS",
		}
	}
	return nil
}
