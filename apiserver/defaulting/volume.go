package defaulting

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

func volume(v *corev1.Volume) {
	if v.VolumeSource == (corev1.VolumeSource{}) {
		v.EmptyDir = &corev1.EmptyDirVolumeSource{}
	}
	// A volume of several kinds is refused later, but each has its defaults.
	if v.HostPath != nil {
		point(&v.HostPath.Type, corev1.HostPathUnset)
	}
	if v.Secret != nil {
		point(&v.Secret.DefaultMode, corev1.SecretVolumeSourceDefaultMode)
	}
	if v.ConfigMap != nil {
		point(&v.ConfigMap.DefaultMode, corev1.ConfigMapVolumeSourceDefaultMode)
	}
	if v.DownwardAPI != nil {
		point(&v.DownwardAPI.DefaultMode, corev1.DownwardAPIVolumeSourceDefaultMode)
		downwardItems(v.DownwardAPI.Items)
	}
	if v.Projected != nil {
		projected(v.Projected)
	}
	if v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil {
		ClaimSpec(&v.Ephemeral.VolumeClaimTemplate.Spec)
	}
	if v.Image != nil {
		set(&v.Image.PullPolicy, pullPolicy(v.Image.Reference))
	}
	networkVolume(&v.VolumeSource)
}

func downwardItems(items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		fieldRef(items[i].FieldRef)
	}
}

func projected(p *corev1.ProjectedVolumeSource) {
	point(&p.DefaultMode, corev1.ProjectedVolumeSourceDefaultMode)
	for i := range p.Sources {
		s := &p.Sources[i]
		if s.DownwardAPI != nil {
			downwardItems(s.DownwardAPI.Items)
		}
		if s.ServiceAccountToken != nil {
			point(&s.ServiceAccountToken.ExpirationSeconds, int64(time.Hour/time.Second))
		}
	}
}

// networkVolume defaults the in-tree network volumes that old manifests name.
func networkVolume(v *corev1.VolumeSource) {
	if v.ISCSI != nil {
		set(&v.ISCSI.ISCSIInterface, "default")
	}
	if v.RBD != nil {
		ceph(&v.RBD.RBDPool, &v.RBD.RadosUser, &v.RBD.Keyring)
	}
	if v.ScaleIO != nil {
		scaleIO(&v.ScaleIO.StorageMode, &v.ScaleIO.FSType)
	}
	azureDisk(v.AzureDisk)
}

func ceph(pool, user, keyring *string) {
	set(pool, "rbd")
	set(user, "admin")
	set(keyring, "/etc/ceph/keyring")
}

func scaleIO(mode, fsType *string) {
	set(mode, "ThinProvisioned")
	set(fsType, "xfs")
}

func azureDisk(a *corev1.AzureDiskVolumeSource) {
	if a == nil {
		return
	}
	point(&a.CachingMode, corev1.AzureDataDiskCachingReadWrite)
	point(&a.FSType, "ext4")
	point(&a.ReadOnly, false)
	point(&a.Kind, corev1.AzureSharedBlobDisk)
}

// ClaimSpec defaults the spec of a persistent volume claim.
func ClaimSpec(s *corev1.PersistentVolumeClaimSpec) {
	point(&s.VolumeMode, corev1.PersistentVolumeFilesystem)
	resourceList(s.Resources.Limits)
	resourceList(s.Resources.Requests)
}

// PersistentVolumeClaim defaults a claim.
func PersistentVolumeClaim(c *corev1.PersistentVolumeClaim) {
	set(&c.Status.Phase, corev1.ClaimPending)
	ClaimSpec(&c.Spec)
	resourceList(c.Status.Capacity)
	resourceList(c.Status.AllocatedResources)
}

// PersistentVolume defaults a volume.
func PersistentVolume(v *corev1.PersistentVolume) {
	set(&v.Status.Phase, corev1.VolumePending)
	set(&v.Spec.PersistentVolumeReclaimPolicy, corev1.PersistentVolumeReclaimRetain)
	point(&v.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)
	resourceList(v.Spec.Capacity)
	volumeSource(&v.Spec.PersistentVolumeSource)
}

// volumeSource defaults the in-tree sources of persistent volumes.
func volumeSource(s *corev1.PersistentVolumeSource) {
	if s.HostPath != nil {
		point(&s.HostPath.Type, corev1.HostPathUnset)
	}
	if s.RBD != nil {
		ceph(&s.RBD.RBDPool, &s.RBD.RadosUser, &s.RBD.Keyring)
	}
	if s.ISCSI != nil {
		set(&s.ISCSI.ISCSIInterface, "default")
	}
	if s.ScaleIO != nil {
		scaleIO(&s.ScaleIO.StorageMode, &s.ScaleIO.FSType)
	}
	azureDisk(s.AzureDisk)
}
