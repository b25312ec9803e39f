package validation

import (
	"math"
	"strings"
	"unicode/utf8"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The limits of what drivers say of themselves.
const (
	maxNodeID         = 256
	maxAttachMetadata = 256 * 1024
	maxVolumeError    = 1024
	minAllocatable    = 10      // seconds between two looks at it
	minTokenSeconds   = 600     // ten minutes
	maxTokenSeconds   = 1 << 32 // and some centuries
)

// CSIDriver validates a driver.
func CSIDriver(d *storagev1.CSIDriver) field.ErrorList {
	p := clusterMeta(&d.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	driverSpec(&p, &d.Spec)
	return p.list
}

// CSIDriverUpdate validates a change of a driver; how its volumes live stays.
func CSIDriverUpdate(d, old *storagev1.CSIDriver) field.ErrorList {
	p := metaUpdate(&d.ObjectMeta, &old.ObjectMeta)
	driverSpec(&p, &d.Spec)
	p.immutable(field.NewPath("spec", "attachedRequired"), d.Spec.AttachRequired, old.Spec.AttachRequired)
	p.immutable(field.NewPath("spec", "volumeLifecycleModes"), d.Spec.VolumeLifecycleModes, old.Spec.VolumeLifecycleModes)
	return p.list
}

func driverSpec(p *problems, s *storagev1.CSIDriverSpec) {
	path := field.NewPath("spec")
	for _, must := range []struct {
		name string
		set  bool
	}{
		{"attachedRequired", s.AttachRequired != nil},
		{"podInfoOnMount", s.PodInfoOnMount != nil},
		{"storageCapacity", s.StorageCapacity != nil},
		{"seLinuxMount", s.SELinuxMount != nil},
		{"preventPodSchedulingIfMissing", s.PreventPodSchedulingIfMissing != nil},
	} {
		if !must.set {
			p.required(path.Child(must.name), "")
		}
	}
	if s.FSGroupPolicy != nil {
		oneOf(p, path.Child("fsGroupPolicy"), *s.FSGroupPolicy,
			storagev1.FileFSGroupPolicy, storagev1.NoneFSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	}
	driverTokens(p, path.Child("tokenRequests"), s.TokenRequests)
	for _, mode := range s.VolumeLifecycleModes {
		oneOf(p, path.Child("volumeLifecycleModes"), mode, storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral)
	}
	if n := s.NodeAllocatableUpdatePeriodSeconds; n != nil && *n < minAllocatable {
		p.invalid(path.Child("nodeAllocatableUpdatePeriodSeconds"), *n, "must be greater than or equal to 10 seconds")
	}
	if s.ServiceAccountTokenInSecrets != nil && len(s.TokenRequests) == 0 {
		p.invalid(path.Child("serviceAccountTokenInSecrets"), s.ServiceAccountTokenInSecrets,
			"serviceAccountTokenInSecrets is set but no tokenRequests are specified")
	}
}

func driverTokens(p *problems, path *field.Path, list []storagev1.TokenRequest) {
	seen := map[string]bool{}
	for i, r := range list {
		at := path.Index(i)
		if seen[r.Audience] {
			p.duplicate(at.Child("audience"), r.Audience)
			continue
		}
		seen[r.Audience] = true
		if n := r.ExpirationSeconds; n != nil && *n < minTokenSeconds {
			p.invalid(at.Child("expirationSeconds"), *n, "may not specify a duration less than 10 minutes")
		} else if n != nil && *n > maxTokenSeconds {
			p.invalid(at.Child("expirationSeconds"), *n, "may not specify a duration larger than 2^32 seconds")
		}
	}
}

// CSINode validates what drivers a node has.
func CSINode(n *storagev1.CSINode) field.ErrorList {
	p := clusterMeta(&n.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	seen := map[string]bool{}
	for i := range n.Spec.Drivers {
		d, at := &n.Spec.Drivers[i], field.NewPath("spec", "drivers").Index(i)
		csiDriverName(&p, at.Child("name"), d.Name)
		if d.NodeID == "" {
			p.required(at.Child("nodeID"), "")
		}
		if len(d.NodeID) > maxNodeID {
			p.invalid(at.Child("nodeID"), d.NodeID, "must be 256 characters or less")
		}
		if d.Allocatable != nil {
			p.nonNegative(at.Child("allocatable", "count"), int64(deref(d.Allocatable.Count)))
		}
		if seen[d.Name] {
			p.duplicate(at.Child("name"), d.Name)
		}
		seen[d.Name] = true
		topologyKeys(&p, at, d.TopologyKeys)
	}
	return p.list
}

func topologyKeys(p *problems, at *field.Path, keys []string) {
	seen := map[string]bool{}
	for _, key := range keys {
		if key == "" {
			p.required(at, "")
		}
		if seen[key] {
			p.duplicate(at, key)
		}
		seen[key] = true
		p.check(at, key, validation.IsQualifiedName)
	}
}

// CSINodeUpdate validates a change of a node's drivers: of one that stays only
// how many volumes it takes may change.
func CSINodeUpdate(n, old *storagev1.CSINode) field.ErrorList {
	p := problems{CSINode(n)}
	for _, before := range old.Spec.Drivers {
		for _, now := range n.Spec.Drivers {
			if before.Name == now.Name {
				before.Allocatable, now.Allocatable = nil, nil
				p.immutable(field.NewPath("spec", "drivers"), &now, &before)
			}
		}
	}
	return p.list
}

// CSINodeStatusUpdate validates a change of a node's storage health, which is
// alpha and always empty.
func CSINodeStatusUpdate(n, old *storagev1.CSINode) field.ErrorList {
	return metaUpdate(&n.ObjectMeta, &old.ObjectMeta).list
}

// CSIStorageCapacity validates how much storage is left somewhere.
func CSIStorageCapacity(c *storagev1.CSIStorageCapacity) field.ErrorList {
	return storageCapacity(c, false).list
}

func storageCapacity(c *storagev1.CSIStorageCapacity, anyValue bool) problems {
	p := meta(&c.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	p.add(metavalidation.ValidateLabelSelector(c.NodeTopology,
		metavalidation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: anyValue}, field.NewPath("nodeTopology"))...)
	p.name(field.NewPath("storageClassName"), c.StorageClassName, apimachinery.NameIsDNSSubdomain)
	if c.Capacity != nil {
		p.nonNegativeQuantity(field.NewPath("capacity"), *c.Capacity)
	}
	return p
}

// CSIStorageCapacityUpdate validates a change of an amount; where it is stays.
func CSIStorageCapacityUpdate(c, old *storagev1.CSIStorageCapacity) field.ErrorList {
	kept := len(metavalidation.ValidateLabelSelector(old.NodeTopology, metavalidation.LabelSelectorValidationOptions{}, nil)) > 0
	p := storageCapacity(c, kept)
	p.add(metaUpdate(&c.ObjectMeta, &old.ObjectMeta).list...)
	if !equality.Semantic.DeepEqual(c.NodeTopology, old.NodeTopology) {
		p.invalid(field.NewPath("nodeTopology"), c.NodeTopology, apimachinery.FieldImmutableErrorMsg)
	}
	p.immutable(field.NewPath("storageClassName"), c.StorageClassName, old.StorageClassName)
	return p.list
}

// VolumeAttachment validates that a volume is to be attached to a node.
func VolumeAttachment(a *storagev1.VolumeAttachment) field.ErrorList {
	return volumeAttachment(a, attacher)
}

func volumeAttachment(a *storagev1.VolumeAttachment, driverName func(*problems, *field.Path, string)) field.ErrorList {
	p := clusterMeta(&a.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	path, source := field.NewPath("spec"), &a.Spec.Source
	driverName(&p, path.Child("attacher"), a.Spec.Attacher)
	const one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
	at := path.Child("source")
	switch name := source.PersistentVolumeName; {
	case source.InlineVolumeSpec == nil && name == nil:
		p.required(at, one)
	case source.InlineVolumeSpec != nil && name != nil:
		p.forbidden(at, one)
	case name == nil:
		inlineVolumeSpec(&p, at.Child("inlineVolumeSpec"), source.InlineVolumeSpec)
	case *name == "":
		p.required(at.Child("persistentVolumeName"), "must specify non empty persistentVolumeName")
	}
	p.name(path.Child("nodeName"), a.Spec.NodeName, apimachinery.NameIsDNSSubdomain)
	size := 0
	for key, value := range a.Status.AttachmentMetadata {
		size += len(key) + len(value)
	}
	if size > maxAttachMetadata {
		p.add(field.TooLong(field.NewPath("status", "attachmentMetadata"), "", maxAttachMetadata))
	}
	volumeError(&p, field.NewPath("status", "attachError"), a.Status.AttachError)
	volumeError(&p, field.NewPath("status", "detachError"), a.Status.DetachError)
	if name := source.PersistentVolumeName; name != nil {
		p.name(path.Child("source.persistentVolumeName"), *name, apimachinery.NameIsDNSSubdomain)
	}
	return p.list
}

// attacher is csiDriverName as upstream's generated rules word it.
func attacher(p *problems, path *field.Path, name string) {
	if name == "" {
		p.required(path, "")
		return
	}
	if utf8.RuneCountInString(name) > maxDriverName {
		p.add(field.TooLongCharacters(path, "", maxDriverName))
	}
	p.check(path, name, content.IsDNS1123SubdomainCaseless) //nolint:staticcheck // drivers have been named so
}

func volumeError(p *problems, path *field.Path, e *storagev1.VolumeError) {
	if e == nil {
		return
	}
	if len(e.Message) > maxVolumeError {
		p.add(field.TooLong(path.Child("message"), "", maxVolumeError))
	}
	if e.ErrorCode != nil && *e.ErrorCode < 0 {
		p.invalid(path.Child("errorCode"), *e.ErrorCode, validation.InclusiveRangeError(0, math.MaxInt32))
	}
}

// VolumeAttachmentUpdate validates a change of an attachment; what is attached
// where stays.
func VolumeAttachmentUpdate(a, old *storagev1.VolumeAttachment) field.ErrorList {
	p := problems{volumeAttachment(a, csiDriverName)} // generated rules stop at the spec, which may not change
	p.fixed(field.NewPath("spec"), a.Spec, old.Spec)
	return p.list
}

// VolumeAttributesClass validates a class of attributes.
func VolumeAttributesClass(c *storagev1.VolumeAttributesClass) field.ErrorList {
	p := clusterMeta(&c.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	if c.DriverName == "" {
		p.required(field.NewPath("driverName"), "")
	} else {
		p.check(field.NewPath("driverName"), strings.ToLower(c.DriverName), validation.IsQualifiedName)
	}
	parameters(&p, field.NewPath("parameters"), c.Parameters)
	if len(c.Parameters) == 0 {
		p.required(field.NewPath("parameters"), "must contain at least one key/value pair")
	}
	return p.list
}

// VolumeAttributesClassUpdate validates a change of a class; what it means stays.
func VolumeAttributesClassUpdate(c, old *storagev1.VolumeAttributesClass) field.ErrorList {
	p := metaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	p.forbid(field.NewPath("driverName"), c.DriverName != old.DriverName, "updates to driverName are forbidden.")
	p.forbid(field.NewPath("parameters"), !equality.Semantic.DeepEqual(c.Parameters, old.Parameters), "updates to parameters are forbidden.")
	p.add(VolumeAttributesClass(c)...)
	return p.list
}
