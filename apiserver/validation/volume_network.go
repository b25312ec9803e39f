package validation

import (
	"fmt"
	"net"
	"path"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	badPartition   = "must be between 1 and 255, inclusive"
	maxLun         = 255
	maxPortalName  = 64
	maxTenant      = 64
	maxDriverName  = 63
	reservedOption = "kubernetes.io and k8s.io namespaces are reserved"
)

// checkOldSources are in upstream's order; the order decides which of two
// sources is refused.
func (c *podCheck) checkOldSources(s *sources, v *corev1.Volume) {
	s.one("gitRepo", v.GitRepo != nil, func(at *field.Path) {
		c.need(at, "repository", v.GitRepo.Repository)
		c.descending(at.Child("directory"), v.GitRepo.Directory)
	})
	s.one("gcePersistentDisk", v.GCEPersistentDisk != nil, func(*field.Path) {
		at := s.path.Child("persistentDisk")
		c.need(at, "pdName", v.GCEPersistentDisk.PDName)
		c.partition(at, v.GCEPersistentDisk.Partition)
	})
	s.one("awsElasticBlockStore", v.AWSElasticBlockStore != nil, func(at *field.Path) {
		c.need(at, "volumeID", v.AWSElasticBlockStore.VolumeID)
		c.partition(at, v.AWSElasticBlockStore.Partition)
	})
}

func (p *problems) partition(path *field.Path, n int32) {
	if n < 0 || n > maxLun {
		p.invalid(path.Child("partition"), n, badPartition)
	}
}

func (p *problems) lun(path *field.Path, n int32) {
	if n < 0 || n > maxLun {
		p.invalid(path.Child("lun"), n, validation.InclusiveRangeError(0, maxLun))
	}
}

func (c *podCheck) checkNetworkSources(s *sources, v *corev1.Volume) {
	s.one("nfs", v.NFS != nil, func(at *field.Path) { nfs(c.problems, at, v.NFS) })
	s.one("iscsi", v.ISCSI != nil, func(at *field.Path) {
		i := v.ISCSI
		c.need(at, "targetPortal", i.TargetPortal)
		if i.IQN == "" {
			c.required(at.Child("iqn"), "")
		} else {
			c.iscsiName(at.Child("iqn"), i.IQN)
		}
		c.lun(at, i.Lun)
		if (i.DiscoveryCHAPAuth || i.SessionCHAPAuth) && i.SecretRef == nil {
			c.required(at.Child("secretRef"), "")
		}
		if i.InitiatorName != nil {
			c.iscsiName(at.Child("initiatorname"), *i.InitiatorName)
		}
	})
	if i := v.ISCSI; i != nil && i.InitiatorName != nil && len(v.Name+":"+i.TargetPortal) > maxPortalName {
		c.invalid(s.path.Child("name"), v.Name, "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.")
	}
	s.one("glusterfs", v.Glusterfs != nil, func(at *field.Path) {
		c.need(at, "endpoints", v.Glusterfs.EndpointsName)
		c.need(at, "path", v.Glusterfs.Path)
	})
	s.one("flocker", v.Flocker != nil, func(at *field.Path) { flocker(c.problems, at, v.Flocker) })
	s.one("persistentVolumeClaim", v.PersistentVolumeClaim != nil, func(at *field.Path) {
		c.need(at, "claimName", v.PersistentVolumeClaim.ClaimName)
	})
	s.one("rbd", v.RBD != nil, func(at *field.Path) {
		if len(v.RBD.CephMonitors) == 0 {
			c.required(at.Child("monitors"), "")
		}
		c.need(at, "image", v.RBD.RBDImage)
	})
	s.one("cinder", v.Cinder != nil, func(at *field.Path) {
		c.need(at, "volumeID", v.Cinder.VolumeID)
		if v.Cinder.SecretRef != nil {
			c.need(at.Child("secretRef"), "name", v.Cinder.SecretRef.Name)
		}
	})
	s.one("cephFS", v.CephFS != nil, func(*field.Path) {
		at := s.path.Child("cephfs") // upstream has it both ways
		if len(v.CephFS.Monitors) == 0 {
			c.required(at.Child("monitors"), "")
		}
	})
	s.one("quobyte", v.Quobyte != nil, func(at *field.Path) { quobyte(c.problems, at, v.Quobyte) })
}

func nfs(p *problems, at *field.Path, n *corev1.NFSVolumeSource) {
	p.need(at, "server", n.Server)
	p.need(at, "path", n.Path)
	if !path.IsAbs(n.Path) {
		p.invalid(at.Child("path"), n.Path, "must be an absolute path")
	}
}

// iscsiName demands a name of one of the three schemes of RFC 3720 and 3980.
func (p *problems) iscsiName(path *field.Path, name string) {
	var format string
	switch {
	case strings.HasPrefix(name, "iqn"):
		format = `iqn\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`
	case strings.HasPrefix(name, "eui"):
		format = `^eui.[[:alnum:]]{16}$`
	case strings.HasPrefix(name, "naa"):
		format = `^naa.[[:alnum:]]{32}$`
	default:
		p.invalid(path, name, "must be valid format starting with iqn, eui, or naa")
		return
	}
	if ok, err := regexp.MatchString(format, name); err != nil || !ok {
		p.invalid(path, name, "must be valid format")
	}
}

func quobyte(p *problems, at *field.Path, q *corev1.QuobyteVolumeSource) {
	const pairs = "must be a host:port pair or multiple pairs separated by commas"
	switch {
	case q.Registry == "":
		p.required(at.Child("registry"), pairs)
	case len(q.Tenant) > maxTenant:
		p.required(at.Child("tenant"), "must be a UUID and may not exceed a length of 64 characters")
	default:
		for pair := range strings.SplitSeq(q.Registry, ",") {
			if _, _, err := net.SplitHostPort(pair); err != nil {
				p.invalid(at.Child("registry"), q.Registry, pairs)
			}
		}
	}
	p.need(at, "volume", q.Volume)
}

func (c *podCheck) checkFibreAndFlex(s *sources, v *corev1.Volume) {
	s.one("fc", v.FC != nil, func(at *field.Path) { fibreChannel(c.problems, at, v.FC) })
	s.one("flexVolume", v.FlexVolume != nil, func(at *field.Path) {
		c.need(at, "driver", v.FlexVolume.Driver)
		flexOptions(c.problems, at.Child("options"), v.FlexVolume.Options)
	})
}

func fibreChannel(p *problems, at *field.Path, f *corev1.FCVolumeSource) {
	targets := at.Child("targetWWNs")
	if len(f.TargetWWNs) == 0 && len(f.WWIDs) == 0 {
		p.required(targets, "must specify either targetWWNs or wwids, but not both")
	}
	if len(f.TargetWWNs) > 0 && len(f.WWIDs) > 0 {
		p.invalid(targets, f.TargetWWNs, "targetWWNs and wwids can not be specified simultaneously")
	}
	if len(f.TargetWWNs) == 0 {
		return
	}
	if f.Lun == nil {
		p.required(at.Child("lun"), "lun is required if targetWWNs is specified")
	} else {
		p.lun(at, *f.Lun)
	}
}

func flexOptions(p *problems, path *field.Path, options map[string]string) {
	for _, key := range sorted(options) {
		namespace, _, _ := strings.Cut(key, "/")
		namespace = "." + strings.ToLower(namespace)
		if strings.HasSuffix(namespace, ".kubernetes.io") || strings.HasSuffix(namespace, ".k8s.io") {
			p.invalid(path.Key(key), key, reservedOption)
		}
	}
}

func (c *podCheck) checkVendorSources(s *sources, v *corev1.Volume) {
	s.one("azureFile", v.AzureFile != nil, func(at *field.Path) {
		c.need(at, "secretName", v.AzureFile.SecretName)
		c.need(at, "shareName", v.AzureFile.ShareName)
	})
	s.one("vsphereVolume", v.VsphereVolume != nil, func(at *field.Path) { c.need(at, "volumePath", v.VsphereVolume.VolumePath) })
	s.one("photonPersistentDisk", v.PhotonPersistentDisk != nil, func(at *field.Path) {
		c.need(at, "pdID", v.PhotonPersistentDisk.PdID)
	})
	s.one("portworxVolume", v.PortworxVolume != nil, func(at *field.Path) { c.need(at, "volumeID", v.PortworxVolume.VolumeID) })
	s.one("azureDisk", v.AzureDisk != nil, func(at *field.Path) { azureDisk(c.problems, at, v.AzureDisk) })
	s.one("storageos", v.StorageOS != nil, func(at *field.Path) {
		o := v.StorageOS
		c.requireFormat(at.Child("volumeName"), o.VolumeName, validation.IsDNS1123Label)
		if o.VolumeNamespace != "" {
			c.problems.check(at.Child("volumeNamespace"), o.VolumeNamespace, validation.IsDNS1123Label)
		}
		if o.SecretRef != nil {
			c.need(at.Child("secretRef"), "name", o.SecretRef.Name)
		}
	})
}

func azureDisk(p *problems, at *field.Path, a *corev1.AzureDiskVolumeSource) {
	p.need(at, "diskName", a.DiskName)
	p.need(at, "diskURI", a.DataDiskURI)
	if a.CachingMode != nil {
		oneOf(p, at.Child("cachingMode"), *a.CachingMode, corev1.AzureDataDiskCachingNone,
			corev1.AzureDataDiskCachingReadOnly, corev1.AzureDataDiskCachingReadWrite)
	}
	if a.Kind == nil {
		return
	}
	oneOf(p, at.Child("kind"), *a.Kind, corev1.AzureDedicatedBlobDisk, corev1.AzureManagedDisk, corev1.AzureSharedBlobDisk)
	prefix, form := "https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
	if *a.Kind == corev1.AzureManagedDisk {
		prefix = "/subscriptions/"
		form = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
	}
	if !strings.HasPrefix(a.DataDiskURI, prefix) {
		p.add(field.NotSupported(at.Child("diskURI"), a.DataDiskURI, []string{form}))
	}
}

// csiDriverName validates the name of a driver, whose case does not matter.
func csiDriverName(p *problems, path *field.Path, name string) {
	if name == "" {
		p.required(path, "")
		return
	}
	if len(name) > maxDriverName {
		p.add(field.TooLong(path, "", maxDriverName))
	}
	p.invalid(path, name, validation.IsDNS1123Subdomain(strings.ToLower(name))...)
}

func (c *podCheck) checkCSI(at *field.Path, v *corev1.CSIVolumeSource) {
	csiDriverName(c.problems, at.Child("driver"), v.Driver)
	if v.NodePublishSecretRef == nil {
		return
	}
	if name := v.NodePublishSecretRef.Name; name == "" {
		c.required(at.Child("nodePublishSecretRef", "name"), "")
	} else {
		c.name(at.Child("name"), name, apimachinery.NameIsDNSSubdomain)
	}
}

func (c *podCheck) checkTrustBundle(at *field.Path, b *corev1.ClusterTrustBundleProjection) {
	switch {
	case b.Name != nil && b.SignerName != nil:
		c.invalid(at, printed(b), "only one of name and signerName may be used")
	case b.Name != nil:
		if *b.Name == "" {
			c.required(at.Child("name"), "must be a valid object name")
		}
		for _, complaint := range trustBundleName(*b.Name) {
			c.invalid(at.Child("name"), *b.Name, fmt.Sprintf("not a valid clustertrustbundlename: %v", complaint))
		}
		if b.LabelSelector != nil {
			c.invalid(at.Child("labelSelector"), b.LabelSelector, "labelSelector must be unset if name is specified")
		}
	case b.SignerName != nil:
		if *b.SignerName == "" {
			c.required(at.Child("signerName"), "must be a valid signer name")
		}
		signerName(c.problems, at.Child("signerName"), *b.SignerName)
		c.labelSelector(at.Child("labelSelector"), b.LabelSelector)
	default:
		c.required(at, "either name or signerName must be specified")
	}
	c.need(at, "path", b.Path)
	c.unreserved(at.Child("path"), b.Path)
}
