package kinds

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// PersistentVolume declares volumes that outlive pods.
func PersistentVolume() registry.Kind {
	spec, status := corev1.PersistentVolumeSpec{}, corev1.PersistentVolumeStatus{}
	k := declare[corev1.PersistentVolume, corev1.PersistentVolumeList](corev1.SchemeGroupVersion, "persistentvolumes", "pv")
	k.ReturnDeleted = true
	k.Columns = columns([]metav1.TableColumnDefinition{
		str("Capacity", describe(spec, "capacity")), str("Access Modes", describe(spec, "accessModes")),
		str("Reclaim Policy", describe(spec, "persistentVolumeReclaimPolicy")), str("Status", describe(status, "phase")),
		str("Claim", describe(spec, "claimRef")), str("StorageClass", "StorageClass of the pv"),
		str("VolumeAttributesClass", "VolumeAttributesClass of the pv"), str("Reason", describe(status, "reason")), ageColumn(),
	}, wide(str("VolumeMode", describe(spec, "volumeMode")))...)
	k.Row = row(volumeRow)
	k.Select = selects(func(v *corev1.PersistentVolume) fields.Set { return fields.Set{"name": v.Name} })
	k.Unselectable = []string{"name"}
	k.Default = defaults(defaulting.PersistentVolume)
	divide(&k, false, rules[*corev1.PersistentVolume]{
		create: func(v *corev1.PersistentVolume) {
			now := metav1.Now()
			v.Status.Phase, v.Status.LastPhaseTransitionTime = corev1.VolumePending, &now
		},
		validate: validation.PersistentVolume, validateUpdate: validation.PersistentVolumeUpdate, warn: warnVolume,
	}, rules[*corev1.PersistentVolume]{
		update: datePhase, validateUpdate: validation.PersistentVolumeStatusUpdate,
	})
	return k
}

// datePhase keeps the time at which the phase changed, unless the writer
// knows it better.
func datePhase(v, old *corev1.PersistentVolume) {
	s, had := &v.Status, &old.Status
	switch {
	case s.Phase == had.Phase && s.LastPhaseTransitionTime == nil:
		s.LastPhaseTransitionTime = had.LastPhaseTransitionTime
	case s.Phase != had.Phase && (s.LastPhaseTransitionTime == nil || s.LastPhaseTransitionTime.Equal(had.LastPhaseTransitionTime)):
		now := metav1.Now()
		s.LastPhaseTransitionTime = &now
	}
}

func volumeRow(v *corev1.PersistentVolume) []any {
	size, claim, phase := v.Spec.Capacity[corev1.ResourceStorage], "", string(v.Status.Phase)
	if ref := v.Spec.ClaimRef; ref != nil {
		claim = ref.Namespace + "/" + ref.Name
	}
	if v.DeletionTimestamp != nil {
		phase = "Terminating"
	}
	class := v.Spec.StorageClassName
	if old, ok := v.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		class = old
	}
	return []any{
		size.String(), accessModes(v.Spec.AccessModes), string(v.Spec.PersistentVolumeReclaimPolicy), phase, claim, class,
		valueOr(v.Spec.VolumeAttributesClassName, unset), v.Status.Reason, age(v.CreationTimestamp),
		string(valueOr(v.Spec.VolumeMode, unset)),
	}
}

// accessModes abbreviates how a volume may be mounted, each mode once.
func accessModes(modes []corev1.PersistentVolumeAccessMode) string {
	var out []string
	for _, m := range []struct {
		mode  corev1.PersistentVolumeAccessMode
		short string
	}{{corev1.ReadWriteOnce, "RWO"}, {corev1.ReadOnlyMany, "ROX"}, {corev1.ReadWriteMany, "RWX"}, {corev1.ReadWriteOncePod, "RWOP"}} {
		if slices.Contains(modes, m.mode) {
			out = append(out, m.short)
		}
	}
	return strings.Join(out, ",")
}

func warnVolume(v, _ *corev1.PersistentVolume) []string {
	w := &podWarner{}
	for _, old := range []struct{ key, instead string }{
		{corev1.BetaStorageClassAnnotation, `deprecated since v1.8; use "storageClassName" attribute instead`},
		{corev1.MountOptionAnnotation, `deprecated since v1.31; use "mountOptions" attribute instead`},
	} {
		if _, ok := v.Annotations[old.key]; ok {
			w.at(field.NewPath("metadata", "annotations").Key(old.key), old.instead)
		}
	}
	s := &v.Spec
	if s.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		w.at(field.NewPath("spec", "persistentVolumeReclaimPolicy"),
			"The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.")
	}
	if s.NodeAffinity != nil && s.NodeAffinity.Required != nil {
		for i := range s.NodeAffinity.Required.NodeSelectorTerms {
			w.term(field.NewPath("spec", "nodeAffinity", "required", "nodeSelectorTerms").Index(i), &s.NodeAffinity.Required.NodeSelectorTerms[i])
		}
	}
	for _, gone := range []struct {
		set        bool
		name       string
		old, ended int
	}{
		{s.CephFS != nil, "cephfs", 28, 31},
		{s.PhotonPersistentDisk != nil, "photonPersistentDisk", 11, 16},
		{s.ScaleIO != nil, "scaleIO", 16, 22},
		{s.StorageOS != nil, "storageOS", 22, 25},
		{s.Glusterfs != nil, "glusterfs", 25, 26},
		{s.RBD != nil, "rbd", 28, 31},
	} {
		if gone.set {
			w.at(field.NewPath("spec", gone.name), fmt.Sprintf("deprecated in v1.%d, non-functional in v1.%d+", gone.old, gone.ended))
		}
	}
	return w.list
}
