package validation

import (
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const inlineVolume = " in the context of inline volumes"

// PersistentVolume validates a volume.
func PersistentVolume(v *corev1.PersistentVolume) field.ErrorList {
	p := persistentVolume(v, nil)
	mountOptions(&p, v)
	return p.list
}

func persistentVolume(v, old *corev1.PersistentVolume) problems {
	p := clusterMeta(&v.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	kept := false
	if old != nil && old.Spec.NodeAffinity != nil {
		var t tolerated
		t.affinity(&corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: old.Spec.NodeAffinity.Required,
		}})
		kept = t.nodeAffinityValues
	}
	volumeSpec(&p, field.NewPath("spec"), &v.Spec, v.Name, kept)
	return p
}

// mountOptions refuses the old annotation on volumes that nothing mounts with
// options.
func mountOptions(p *problems, v *corev1.PersistentVolume) {
	s := &v.Spec
	mounted := s.GCEPersistentDisk != nil || s.AWSElasticBlockStore != nil || s.Glusterfs != nil || s.NFS != nil || s.RBD != nil ||
		s.Quobyte != nil || s.ISCSI != nil || s.Cinder != nil || s.CephFS != nil || s.AzureFile != nil || s.VsphereVolume != nil ||
		s.AzureDisk != nil || s.PhotonPersistentDisk != nil
	_, ok := v.Annotations[corev1.MountOptionAnnotation]
	p.forbid(field.NewPath("metadata", "annotations", corev1.MountOptionAnnotation), ok && !mounted,
		"may not specify mount options for this volume type")
}

// PersistentVolumeUpdate validates a change of a volume; where its data are
// stays.
func PersistentVolumeUpdate(v, old *corev1.PersistentVolume) field.ErrorList {
	p := persistentVolume(v, old)
	mountOptions(&p, v)
	now, before := v.Spec.PersistentVolumeSource, old.Spec.PersistentVolumeSource
	if before.CSI != nil && before.CSI.ControllerExpandSecretRef == nil && now.CSI != nil {
		now = *now.DeepCopy()
		now.CSI.ControllerExpandSecretRef = nil
	}
	if !equality.Semantic.DeepEqual(now, before) {
		p.forbidden(field.NewPath("spec", "persistentvolumesource"),
			"spec.persistentvolumesource is immutable after creation\n"+diff.Diff(printed(before), printed(now)))
	}
	p.immutable(field.NewPath("volumeMode"), v.Spec.VolumeMode, old.Spec.VolumeMode)
	if a := old.Spec.NodeAffinity; a != nil && !equality.Semantic.DeepEqual(renewed(v.Spec.NodeAffinity, nil), renewed(v.Spec.NodeAffinity, a)) {
		p.invalid(field.NewPath("nodeAffinity"), printed(v.Spec.NodeAffinity),
			apimachinery.FieldImmutableErrorMsg+", except for updating from beta label to GA")
	}
	p.forbid(field.NewPath("spec", "volumeAttributesClassName"),
		old.Spec.VolumeAttributesClassName != nil && v.Spec.VolumeAttributesClassName == nil, "update from non-nil value to nil is forbidden")
	return p.list
}

// renewed returns old with the node labels renamed that now has renamed, or
// now itself if there is no old.
func renewed(now, old *corev1.VolumeNodeAffinity) *corev1.VolumeNodeAffinity {
	if old == nil {
		return now
	}
	out := old.DeepCopy()
	if now == nil || now.Required == nil || out.Required == nil {
		return out
	}
	names := map[string]string{
		corev1.LabelFailureDomainBetaZone:   corev1.LabelTopologyZone,
		corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
		corev1.LabelInstanceType:            corev1.LabelInstanceTypeStable,
		"beta.kubernetes.io/arch":           corev1.LabelArchStable,
		"beta.kubernetes.io/os":             corev1.LabelOSStable,
	}
	for i := range out.Required.NodeSelectorTerms {
		if i >= len(now.Required.NodeSelectorTerms) {
			break
		}
		had, has := out.Required.NodeSelectorTerms[i].MatchExpressions, now.Required.NodeSelectorTerms[i].MatchExpressions
		for j := range had {
			if j < len(has) && has[j].Key == names[had[j].Key] {
				had[j].Key = has[j].Key
			}
		}
	}
	return out
}

// PersistentVolumeStatusUpdate validates a change of a volume's state.
func PersistentVolumeStatusUpdate(v, old *corev1.PersistentVolume) field.ErrorList {
	p := metaUpdate(&v.ObjectMeta, &old.ObjectMeta)
	if v.ResourceVersion == "" {
		p.required(field.NewPath("resourceVersion"), "")
	}
	return p.list
}

func volumeSpec(p *problems, at *field.Path, s *corev1.PersistentVolumeSpec, name string, anyValue bool) {
	if len(s.AccessModes) == 0 {
		p.required(at.Child("accessModes"), "")
	}
	accessModes(p, at.Child("accessModes"), s.AccessModes)
	volumeCapacity(p, at.Child("capacity"), s.Capacity)
	reclaim := at.Child("persistentVolumeReclaimPolicy")
	if s.PersistentVolumeReclaimPolicy != "" {
		oneOf(p, reclaim, s.PersistentVolumeReclaimPolicy, corev1.PersistentVolumeReclaimDelete,
			corev1.PersistentVolumeReclaimRecycle, corev1.PersistentVolumeReclaimRetain)
	}
	if s.NodeAffinity != nil {
		volumeAffinity(p, at.Child("nodeAffinity", "required"), s.NodeAffinity.Required, anyValue)
	}
	volumeSource(p, at, &s.PersistentVolumeSource, name, s.NodeAffinity != nil)
	p.forbid(reclaim, recyclesRoot(s), "may not be 'recycle' for a hostPath mount of '/'")
	if s.StorageClassName != "" {
		p.name(at.Child("storageClassName"), s.StorageClassName, apimachinery.NameIsDNSSubdomain)
	}
	volumeMode(p, at.Child("volumeMode"), s.VolumeMode)
	attributesClass(p, at, s)
}

func attributesClass(p *problems, at *field.Path, s *corev1.PersistentVolumeSpec) {
	class := s.VolumeAttributesClassName
	if class == nil {
		return
	}
	if *class == "" {
		p.required(at.Child("volumeAttributesClassName"), "an empty string is disallowed")
	} else {
		p.name(at.Child("volumeAttributesClassName"), *class, apimachinery.NameIsDNSSubdomain)
	}
	if s.CSI == nil {
		p.required(at.Child("csi"), "has to be specified when using volumeAttributesClassName")
	}
}

func volumeCapacity(p *problems, at *field.Path, list corev1.ResourceList) {
	if len(list) == 0 {
		p.required(at, "")
	}
	if _, ok := list[corev1.ResourceStorage]; !ok || len(list) > 1 {
		p.add(field.NotSupported(at, list, []corev1.ResourceName{corev1.ResourceStorage}))
	}
	for _, name := range sorted(list) {
		q := list[name]
		if q.Value() < 0 {
			p.invalid(at.Key(string(name)), q.Value(), "must be a valid resource quantity")
		}
		p.positiveQuantity(at.Key(string(name)), q)
	}
}

func volumeAffinity(p *problems, at *field.Path, required *corev1.NodeSelector, anyValue bool) {
	if required == nil {
		p.required(at, "must specify required node constraints")
		return
	}
	nodeSelector(p, at, required, anyValue)
}

func recyclesRoot(s *corev1.PersistentVolumeSpec) bool {
	return s.HostPath != nil && path.Clean(s.HostPath.Path) == "/" && s.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle
}

// inlineVolumeSpec validates the volume that an attachment brings with it instead
// of a name.
func inlineVolumeSpec(p *problems, at *field.Path, s *corev1.PersistentVolumeSpec) {
	p.forbid(at.Child("claimRef"), s.ClaimRef != nil, "may not be specified"+inlineVolume)
	p.forbid(at.Child("capacity"), len(s.Capacity) > 0, "may not be specified"+inlineVolume)
	if s.CSI == nil {
		p.required(at.Child("csi"), "has to be specified"+inlineVolume)
	}
	if len(s.AccessModes) == 0 {
		p.required(at.Child("accessModes"), "")
	}
	accessModes(p, at.Child("accessModes"), s.AccessModes)
	reclaim := at.Child("persistentVolumeReclaimPolicy")
	p.forbid(reclaim, s.PersistentVolumeReclaimPolicy != "" && s.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain,
		"may only be Retain"+inlineVolume)
	p.forbid(at.Child("nodeAffinity"), s.NodeAffinity != nil, "may not be specified"+inlineVolume)
	volumeSource(p, at, &s.PersistentVolumeSource, "", false)
	p.forbid(reclaim, recyclesRoot(s), "may not be 'recycle' for a hostPath mount of '/'")
	p.forbid(at.Child("storageClassName"), s.StorageClassName != "", "may not be specified"+inlineVolume)
	p.forbid(at.Child("volumeMode"), s.VolumeMode != nil && *s.VolumeMode != corev1.PersistentVolumeFilesystem,
		"may not specify volumeMode other than Filesystem"+inlineVolume)
	attributesClass(p, at, s)
}

// volumeSource validates where a volume's data are. The order is upstream's:
// all but the first source are refused.
func volumeSource(p *problems, at *field.Path, v *corev1.PersistentVolumeSource, name string, bound bool) {
	s := &sources{problems: p, path: at}
	s.one("hostPath", v.HostPath != nil, func(at *field.Path) { hostPath(p, at, v.HostPath) })
	s.one("gcePersistentDisk", v.GCEPersistentDisk != nil, func(*field.Path) {
		p.need(at.Child("persistentDisk"), "pdName", v.GCEPersistentDisk.PDName)
		p.partition(at.Child("persistentDisk"), v.GCEPersistentDisk.Partition)
	})
	s.one("awsElasticBlockStore", v.AWSElasticBlockStore != nil, func(at *field.Path) {
		p.need(at, "volumeID", v.AWSElasticBlockStore.VolumeID)
		p.partition(at, v.AWSElasticBlockStore.Partition)
	})
	s.one("glusterfs", v.Glusterfs != nil, func(at *field.Path) { glusterVolume(p, at, v.Glusterfs) })
	s.one("flocker", v.Flocker != nil, func(at *field.Path) { flocker(p, at, v.Flocker) })
	s.one("nfs", v.NFS != nil, func(at *field.Path) { nfs(p, at, v.NFS) })
	s.one("rbd", v.RBD != nil, func(at *field.Path) {
		p.needSome(at, "monitors", v.RBD.CephMonitors)
		p.need(at, "image", v.RBD.RBDImage)
	})
	s.one("quobyte", v.Quobyte != nil, func(at *field.Path) { quobyte(p, at, v.Quobyte) })
	s.one("cephFS", v.CephFS != nil, func(*field.Path) { p.needSome(at.Child("cephfs"), "monitors", v.CephFS.Monitors) })
	s.one("iscsi", v.ISCSI != nil, func(at *field.Path) { iscsiVolume(p, at, v.ISCSI, name) })
	s.one("cinder", v.Cinder != nil, func(at *field.Path) {
		p.need(at, "volumeID", v.Cinder.VolumeID)
		if ref := v.Cinder.SecretRef; ref != nil {
			p.need(at.Child("secretRef"), "name", ref.Name)
			p.need(at.Child("secretRef"), "namespace", ref.Namespace)
		}
	})
	s.one("fc", v.FC != nil, func(at *field.Path) { fibreChannel(p, at, v.FC) })
	if f := v.FlexVolume; f != nil {
		s.found = true // it is checked beside others, too
		p.need(at.Child("flexVolume"), "driver", f.Driver)
		flexOptions(p, at.Child("flexVolume", "options"), f.Options)
	}
	vendorVolume(s, v)
	s.one("local", v.Local != nil, func(here *field.Path) {
		p.need(here, "path", v.Local.Path)
		if v.Local.Path != "" {
			p.noBacksteps(here.Child("path"), v.Local.Path)
		}
		if !bound {
			p.required(at.Child("nodeAffinity"), "Local volume requires node affinity")
		}
	})
	s.one("storageos", v.StorageOS != nil, func(at *field.Path) { storageOSVolume(p, at, v.StorageOS) })
	s.one("csi", v.CSI != nil, func(at *field.Path) { csiVolume(p, at, v.CSI) })
	if !s.found {
		p.required(at, "must specify a volume type")
	}
}

// needSome demands a list that is not empty.
func (p *problems) needSome(at *field.Path, name string, list []string) {
	if len(list) == 0 {
		p.required(at.Child(name), "")
	}
}

func glusterVolume(p *problems, at *field.Path, g *corev1.GlusterfsPersistentVolumeSource) {
	p.need(at, "endpoints", g.EndpointsName)
	p.need(at, "path", g.Path)
	if ns := g.EndpointsNamespace; ns != nil && *ns == "" {
		p.invalid(at.Child("endpointsNamespace"), *ns, "if the endpointnamespace is set, it must be a valid namespace name")
	} else if ns != nil {
		p.name(at.Child("endpointsNamespace"), *ns, apimachinery.ValidateNamespaceName)
	}
}

func iscsiVolume(p *problems, at *field.Path, i *corev1.ISCSIPersistentVolumeSource, volume string) {
	p.need(at, "targetPortal", i.TargetPortal)
	if i.InitiatorName != nil && len(volume+":"+i.TargetPortal) > maxPortalName {
		p.invalid(at.Child("targetportal"), i.TargetPortal,
			"Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.")
	}
	format := func(at *field.Path, name string) {
		var q problems
		if q.iscsiName(at, name); len(q.list) > 0 {
			p.invalid(at, name, "must be valid format")
		}
	}
	if i.IQN == "" {
		p.required(at.Child("iqn"), "")
	} else {
		format(at.Child("iqn"), i.IQN)
	}
	p.lun(at, i.Lun)
	if (i.DiscoveryCHAPAuth || i.SessionCHAPAuth) && i.SecretRef == nil {
		p.required(at.Child("secretRef"), "")
	}
	if i.SecretRef != nil {
		p.need(at.Child("secretRef"), "name", i.SecretRef.Name)
	}
	if i.InitiatorName != nil {
		format(at.Child("initiatorname"), *i.InitiatorName)
	}
}

func vendorVolume(s *sources, v *corev1.PersistentVolumeSource) {
	p := s.problems
	s.one("azureFile", v.AzureFile != nil, func(at *field.Path) {
		p.need(at, "secretName", v.AzureFile.SecretName)
		p.need(at, "shareName", v.AzureFile.ShareName)
		if ns := v.AzureFile.SecretNamespace; ns != nil {
			p.need(at, "secretNamespace", *ns)
		}
	})
	s.one("vsphereVolume", v.VsphereVolume != nil, func(at *field.Path) { p.need(at, "volumePath", v.VsphereVolume.VolumePath) })
	s.one("photonPersistentDisk", v.PhotonPersistentDisk != nil, func(at *field.Path) { p.need(at, "pdID", v.PhotonPersistentDisk.PdID) })
	s.one("portworxVolume", v.PortworxVolume != nil, func(at *field.Path) { p.need(at, "volumeID", v.PortworxVolume.VolumeID) })
	s.one("azureDisk", v.AzureDisk != nil, func(at *field.Path) { azureDisk(p, at, v.AzureDisk) })
	s.one("scaleIO", v.ScaleIO != nil, func(at *field.Path) {
		p.need(at, "gateway", v.ScaleIO.Gateway)
		p.need(at, "system", v.ScaleIO.System)
		p.need(at, "volumeName", v.ScaleIO.VolumeName)
	})
}

func storageOSVolume(p *problems, at *field.Path, o *corev1.StorageOSPersistentVolumeSource) {
	p.requireFormat(at.Child("volumeName"), o.VolumeName, validation.IsDNS1123Label)
	if o.VolumeNamespace != "" {
		p.check(at.Child("volumeNamespace"), o.VolumeNamespace, validation.IsDNS1123Label)
	}
	if ref := o.SecretRef; ref != nil {
		p.need(at.Child("secretRef"), "name", ref.Name)
		p.need(at.Child("secretRef"), "namespace", ref.Namespace)
	}
}

func csiVolume(p *problems, at *field.Path, c *corev1.CSIPersistentVolumeSource) {
	csiDriverName(p, at.Child("driver"), c.Driver)
	p.need(at, "volumeHandle", c.VolumeHandle)
	for _, s := range []struct {
		name string
		ref  *corev1.SecretReference
	}{
		{"controllerPublishSecretRef", c.ControllerPublishSecretRef},
		{"controllerExpandSecretRef", c.ControllerExpandSecretRef},
		{"nodePublishSecretRef", c.NodePublishSecretRef},
		{"nodeExpandSecretRef", c.NodeExpandSecretRef},
	} {
		if s.ref != nil {
			p.requireFormat(at.Child(s.name, "name"), s.ref.Name, validation.IsDNS1123Subdomain)
			p.requireFormat(at.Child(s.name, "namespace"), s.ref.Namespace, validation.IsDNS1123Label)
		}
	}
}

func flocker(p *problems, at *field.Path, f *corev1.FlockerVolumeSource) {
	if f.DatasetName == "" && f.DatasetUUID == "" {
		p.required(at, "one of datasetName and datasetUUID is required")
	}
	if f.DatasetName != "" && f.DatasetUUID != "" {
		p.invalid(at, "resource", "datasetName and datasetUUID can not be specified simultaneously")
	}
	if strings.Contains(f.DatasetName, "/") {
		p.invalid(at.Child("datasetName"), f.DatasetName, "must not contain '/'")
	}
}
