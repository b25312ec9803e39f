package defaulting

import (
	nodev1 "k8s.io/api/node/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// RuntimeClass rounds what a runtime itself needs.
func RuntimeClass(c *nodev1.RuntimeClass) {
	if c.Overhead != nil {
		resourceList(c.Overhead.PodFixed)
	}
}

// VolumeAttachment defaults the volume that an attachment may bring with it.
func VolumeAttachment(a *storagev1.VolumeAttachment) {
	v := a.Spec.Source.InlineVolumeSpec
	if v == nil {
		return
	}
	resourceList(v.Capacity)
	volumeSource(&v.PersistentVolumeSource)
}
