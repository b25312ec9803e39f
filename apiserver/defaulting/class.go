package defaulting

import (
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// PriorityClass lets pods of a class preempt lower ones.
func PriorityClass(c *schedulingv1.PriorityClass) {
	point(&c.PreemptionPolicy, corev1.PreemptLowerPriority)
}

// StorageClass deletes volumes with their claims and binds at once.
func StorageClass(c *storagev1.StorageClass) {
	point(&c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)
	point(&c.VolumeBindingMode, storagev1.VolumeBindingImmediate)
}
