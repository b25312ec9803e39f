package validation

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// PersistentVolumeClaim validates a claim.
func PersistentVolumeClaim(c *corev1.PersistentVolumeClaim) field.ErrorList {
	return claim(c, false).list
}

func claim(c *corev1.PersistentVolumeClaim, anyGroup bool) problems {
	p := meta(&c.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	claimSpec(&p, field.NewPath("spec"), &c.Spec, anyGroup)
	return p
}

// PersistentVolumeClaimUpdate validates a change of a claim. It may be bound
// once, and once bound ask for more or for other attributes.
func PersistentVolumeClaimUpdate(c, old *corev1.PersistentVolumeClaim) field.ErrorList {
	p := metaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	p.add(claim(c, old.Spec.DataSource != nil || old.Spec.DataSourceRef != nil).list...)
	now, before := c.DeepCopy(), old.DeepCopy()
	if old.Spec.VolumeName == "" {
		before.Spec.VolumeName = now.Spec.VolumeName
	}
	claimClass(&p, c, old, now)
	if c.Status.Phase == corev1.ClaimBound {
		if now.Spec.Resources.Requests != nil {
			now.Spec.Resources.Requests[corev1.ResourceStorage] = old.Spec.Resources.Requests[corev1.ResourceStorage]
		}
		now.Spec.VolumeAttributesClassName = before.Spec.VolumeAttributesClassName
	}
	if !equality.Semantic.DeepEqual(now.Spec, before.Spec) {
		p.forbidden(field.NewPath("spec"), "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n"+
			diff.Diff(printed(before.Spec), printed(now.Spec)))
	}
	size, had := c.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
	p.forbid(field.NewPath("spec", "resources", "requests", "storage"),
		size.Cmp(had) < 0 && size.Cmp(old.Status.Capacity[corev1.ResourceStorage]) <= 0, "field can not be less than status.capacity")
	p.immutable(field.NewPath("volumeMode"), c.Spec.VolumeMode, old.Spec.VolumeMode)
	if class := c.Spec.VolumeAttributesClassName; old.Status.CurrentVolumeAttributesClassName != nil {
		at, changed := field.NewPath("spec", "volumeAttributesClassName"), !equality.Semantic.DeepEqual(class, old.Spec.VolumeAttributesClassName)
		p.forbid(at, changed && class == nil, "update to nil is forbidden when status.currentVolumeAttributesClassName is not nil")
		p.forbid(at, changed && class != nil && *class == "",
			"update to empty string is forbidden when status.currentVolumeAttributesClassName is not nil")
	}
	return p.list
}

// claimClass lets a claim move from the old annotation of its class to the
// field, or get a class if it has none. now is changed to what then compares
// equal.
func claimClass(p *problems, c, old, now *corev1.PersistentVolumeClaim) {
	const key = corev1.BetaStorageClassAnnotation
	annotated, had := old.Annotations[key]
	renamed, has := c.Annotations[key]
	class := c.Spec.StorageClassName
	gains := class != nil && old.Spec.StorageClassName == nil
	switch {
	case had && gains && *class == annotated && (!has || renamed == annotated):
		now.Spec.StorageClassName = nil
		return
	case gains && (!had || *class == annotated):
		now.Spec.StorageClassName = nil
	}
	if annotated != renamed {
		p.invalid(field.NewPath("metadata", "annotations", key), renamed, apimachinery.FieldImmutableErrorMsg)
	}
}

// PersistentVolumeClaimStatusUpdate validates what is known of a claim's volume.
func PersistentVolumeClaimStatusUpdate(c, old *corev1.PersistentVolumeClaim) field.ErrorList {
	p := metaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	if c.ResourceVersion == "" {
		p.required(field.NewPath("resourceVersion"), "")
	}
	if len(c.Spec.AccessModes) == 0 {
		p.required(field.NewPath("Spec", "accessModes"), "")
	}
	status := field.NewPath("status")
	for _, name := range sorted(c.Status.Capacity) {
		if q := c.Status.Capacity[name]; q.Value() < 0 {
			p.invalid(status.Child("capacity").Key(string(name)), q.Value(), "must be a valid resource quantity")
		}
	}
	known := []corev1.ClaimResourceStatus{
		corev1.PersistentVolumeClaimControllerResizeInProgress, corev1.PersistentVolumeClaimControllerResizeInfeasible,
		corev1.PersistentVolumeClaimNodeResizeInProgress, corev1.PersistentVolumeClaimNodeResizeInfeasible,
		corev1.PersistentVolumeClaimNodeResizePending,
	}
	for _, name := range sorted(c.Status.AllocatedResourceStatuses) {
		at := status.Child("allocatedResourceStatuses")
		claimResource(&p, at, name)
		if !slices.Contains(known, c.Status.AllocatedResourceStatuses[name]) {
			p.add(field.NotSupported(at, name, known))
		}
	}
	for _, name := range sorted(c.Status.AllocatedResources) {
		at, q := status.Child("allocatedResources"), c.Status.AllocatedResources[name]
		if !claimResource(&p, at, name) {
			continue
		}
		if q.Value() < 0 {
			p.invalid(at.Key(string(name)), q.Value(), "must be a valid resource quantity")
		} else {
			p.nonNegativeQuantity(at.Key(string(name)), q)
		}
	}
	return p.list
}

// claimResource reports whether a claim can be given the resource.
func claimResource(p *problems, at *field.Path, name corev1.ResourceName) bool {
	if complaints := validation.IsQualifiedName(string(name)); len(complaints) > 0 {
		p.invalid(at, string(name), complaints...)
		return false
	}
	if native(name) && name != corev1.ResourceStorage {
		p.add(field.NotSupported(at, string(name), []corev1.ResourceName{corev1.ResourceStorage}))
		return false
	}
	return true
}
