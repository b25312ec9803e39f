package kinds

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// PersistentVolumeClaim declares what users ask volumes with.
func PersistentVolumeClaim() registry.Kind {
	spec, status := corev1.PersistentVolumeClaimSpec{}, corev1.PersistentVolumeClaimStatus{}
	k := namespaced[corev1.PersistentVolumeClaim, corev1.PersistentVolumeClaimList](corev1.SchemeGroupVersion, "persistentvolumeclaims", "pvc")
	k.ReturnDeleted = true
	k.Columns = columns([]metav1.TableColumnDefinition{
		str("Status", describe(status, "phase")), str("Volume", describe(spec, "volumeName")),
		str("Capacity", describe(status, "capacity")), str("Access Modes", describe(status, "accessModes")),
		str("StorageClass", "StorageClass of the pvc"), str("VolumeAttributesClass", "VolumeAttributesClass of the pvc"), ageColumn(),
	}, wide(str("VolumeMode", describe(spec, "volumeMode")))...)
	k.Row = row(claimRow)
	k.Select = selects(func(c *corev1.PersistentVolumeClaim) fields.Set { return fields.Set{"name": c.Name} })
	k.Unselectable = []string{"name"}
	k.Default = defaults(defaulting.PersistentVolumeClaim)
	divide(&k, false, rules[*corev1.PersistentVolumeClaim]{
		create:   func(c *corev1.PersistentVolumeClaim) { claimSources(&c.Spec, &corev1.PersistentVolumeClaimSpec{}) },
		update:   func(c, old *corev1.PersistentVolumeClaim) { claimSources(&c.Spec, &old.Spec) },
		validate: validation.PersistentVolumeClaim,
		validateUpdate: func(c, old *corev1.PersistentVolumeClaim) field.ErrorList {
			old = old.DeepCopy() // as if it had been stored today
			pairSources(&old.Spec)
			return validation.PersistentVolumeClaimUpdate(c, old)
		},
		warn: func(c, _ *corev1.PersistentVolumeClaim) []string { return warnClaim(c) },
	}, rules[*corev1.PersistentVolumeClaim]{
		update: func(c, old *corev1.PersistentVolumeClaim) {
			if old.Status.HealthStatus == nil { // alpha, off
				c.Status.HealthStatus = nil
			}
		},
		validateUpdate: validation.PersistentVolumeClaimStatusUpdate,
	})
	return k
}

// claimSources keeps the two ways to name a claim's source alike. The old way
// knows only claims and snapshots, and always ignored everything else; the
// namespace of the new way is alpha.
func claimSources(s, old *corev1.PersistentVolumeClaimSpec) {
	if ref := s.DataSourceRef; ref != nil && valueOr(ref.Namespace, "") != "" && old.DataSourceRef == nil {
		s.DataSourceRef = nil
	}
	if d := s.DataSource; d != nil && s.DataSourceRef == nil && old.DataSource == nil && old.DataSourceRef == nil {
		group := valueOr(d.APIGroup, "")
		known := d.Kind == "PersistentVolumeClaim" && group == "" || d.Kind == "VolumeSnapshot" && group == "snapshot.storage.k8s.io"
		if !known {
			s.DataSource = nil
		}
	}
	pairSources(s)
}

func pairSources(s *corev1.PersistentVolumeClaimSpec) {
	one, ref := s.DataSource, s.DataSourceRef
	switch {
	case one != nil && ref == nil:
		s.DataSourceRef = &corev1.TypedObjectReference{APIGroup: clone(one.APIGroup), Kind: one.Kind, Name: one.Name}
	case one == nil && ref != nil && valueOr(ref.Namespace, "") == "":
		s.DataSource = &corev1.TypedLocalObjectReference{APIGroup: clone(ref.APIGroup), Kind: ref.Kind, Name: ref.Name}
	}
}

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

func claimRow(c *corev1.PersistentVolumeClaim) []any {
	phase, capacity, modes := string(c.Status.Phase), "", ""
	if c.DeletionTimestamp != nil {
		phase = "Terminating"
	}
	if c.Spec.VolumeName != "" {
		size := c.Status.Capacity[corev1.ResourceStorage]
		capacity, modes = size.String(), accessModes(c.Status.AccessModes)
	}
	class := valueOr(c.Spec.StorageClassName, "")
	if old, ok := c.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		class = old
	}
	return []any{
		phase, c.Spec.VolumeName, capacity, modes, class, valueOr(c.Spec.VolumeAttributesClassName, unset),
		age(c.CreationTimestamp), string(valueOr(c.Spec.VolumeMode, unset)),
	}
}

func warnClaim(c *corev1.PersistentVolumeClaim) (warnings []string) {
	if _, ok := c.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		warnings = append(warnings, fmt.Sprintf(`metadata.annotations[%s]: deprecated since v1.8; use "storageClassName" attribute instead`, corev1.BetaStorageClassAnnotation))
	}
	return append(warnings, warnClaimSpec(&c.Spec, field.NewPath("spec"))...)
}

// warnClaimSpec warns of parts of a byte.
func warnClaimSpec(s *corev1.PersistentVolumeClaimSpec, path *field.Path) (warnings []string) {
	for _, l := range []struct {
		name string
		list corev1.ResourceList
	}{{"requests", s.Resources.Requests}, {"limits", s.Resources.Limits}} {
		if q := l.list[corev1.ResourceStorage]; q.MilliValue()%1000 != 0 {
			warnings = append(warnings, fmt.Sprintf("%s: fractional byte value %q is invalid, must be an integer",
				path.Child("resources", l.name).Key(string(corev1.ResourceStorage)), q.String()))
		}
	}
	return warnings
}
