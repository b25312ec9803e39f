package kinds

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// CSIDriver declares storage drivers.
func CSIDriver() registry.Kind {
	spec := storagev1.CSIDriverSpec{}
	k := declare[storagev1.CSIDriver, storagev1.CSIDriverList](storagev1.SchemeGroupVersion, "csidrivers")
	k.ReturnDeleted = true
	k.Columns = []metav1.TableColumnDefinition{
		boolean("AttachRequired", describe(spec, "attachRequired")), boolean("PodInfoOnMount", describe(spec, "podInfoOnMount")),
		boolean("StorageCapacity", describe(spec, "storageCapacity")), str("TokenRequests", describe(spec, "tokenRequests")),
		boolean("RequiresRepublish", describe(spec, "requiresRepublish")), str("Modes", describe(spec, "volumeLifecycleModes")), ageColumn(),
	}
	k.Row = row(csiDriverRow)
	k.Default = defaults(defaulting.CSIDriver)
	k.Strategy = rules[*storagev1.CSIDriver]{
		update:   func(d, old *storagev1.CSIDriver) { recount(d, old, "Spec") },
		validate: validation.CSIDriver, validateUpdate: validation.CSIDriverUpdate, needsVersion: true,
		warn: func(d, old *storagev1.CSIDriver) []string {
			changed := old == nil || !equality.Semantic.DeepEqual(old.Spec.TokenRequests, d.Spec.TokenRequests)
			if changed && len(d.Spec.TokenRequests) > 0 && d.Spec.ServiceAccountTokenInSecrets == nil {
				return []string{"spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, " +
					"set to true to prevent possible logging of tokens in volume attributes"}
			}
			return nil
		},
	}.strategy()
	return k
}

func csiDriverRow(d *storagev1.CSIDriver) []any {
	s, tokens := &d.Spec, unset
	if s.TokenRequests != nil {
		var audiences []string
		for _, r := range s.TokenRequests {
			audiences = append(audiences, r.Audience)
		}
		tokens = strings.Join(audiences, ",")
	}
	var modes []string
	for _, m := range s.VolumeLifecycleModes {
		modes = append(modes, string(m))
	}
	return []any{
		valueOr(s.AttachRequired, true), valueOr(s.PodInfoOnMount, false), valueOr(s.StorageCapacity, false), tokens,
		valueOr(s.RequiresRepublish, false), or(strings.Join(modes, ","), none), age(d.CreationTimestamp),
	}
}

// CSINode declares which drivers nodes have. Its status holds only what is
// alpha, which is dropped.
func CSINode() registry.Kind {
	k := declare[storagev1.CSINode, storagev1.CSINodeList](storagev1.SchemeGroupVersion, "csinodes")
	k.ReturnDeleted = true
	k.Columns = []metav1.TableColumnDefinition{
		num("Drivers", "Drivers indicates the number of CSI drivers registered on the node"), ageColumn(),
	}
	k.Row = row(func(n *storagev1.CSINode) []any { return []any{int64(len(n.Spec.Drivers)), age(n.CreationTimestamp)} })
	divide(&k, false, rules[*storagev1.CSINode]{
		validate: validation.CSINode, validateUpdate: validation.CSINodeUpdate, needsVersion: true,
	}, rules[*storagev1.CSINode]{
		update:         func(n, old *storagev1.CSINode) { n.Status = old.Status },
		validateUpdate: validation.CSINodeStatusUpdate, keepsMeta: true, needsVersion: true,
	})
	return k
}

// CSIStorageCapacity declares how much storage is left where.
func CSIStorageCapacity() registry.Kind {
	k := namespaced[storagev1.CSIStorageCapacity, storagev1.CSIStorageCapacityList](storagev1.SchemeGroupVersion, "csistoragecapacities")
	k.Strategy = rules[*storagev1.CSIStorageCapacity]{
		validate: validation.CSIStorageCapacity, validateUpdate: validation.CSIStorageCapacityUpdate, needsVersion: true,
		warn: func(c, _ *storagev1.CSIStorageCapacity) []string {
			return warnNodeLabels(c.NodeTopology, field.NewPath("nodeTopology"))
		},
	}.strategy()
	return k
}

// warnNodeLabels warns of labels of nodes that have new names.
func warnNodeLabels(s *metav1.LabelSelector, path *field.Path) (warnings []string) {
	if s == nil {
		return nil
	}
	for i, e := range s.MatchExpressions {
		if text, ok := replacedLabel(e.Key); ok {
			warnings = append(warnings, fmt.Sprintf("%s: %s is %s", path.Child("matchExpressions").Index(i).Child("key"), e.Key, text))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		if text, ok := replacedLabel(key); ok {
			warnings = append(warnings, fmt.Sprintf("%s: %s", path.Child("matchLabels").Child(key), text))
		}
	}
	return warnings
}

// VolumeAttachment declares that volumes are to be attached to nodes.
func VolumeAttachment() registry.Kind {
	spec, status := storagev1.VolumeAttachmentSpec{}, storagev1.VolumeAttachmentStatus{}
	k := declare[storagev1.VolumeAttachment, storagev1.VolumeAttachmentList](storagev1.SchemeGroupVersion, "volumeattachments")
	k.ReturnDeleted = true
	by := str("Attacher", describe(spec, "attacher"))
	by.Format = "name"
	k.Columns = []metav1.TableColumnDefinition{
		by, str("PV", describe(storagev1.VolumeAttachmentSource{}, "persistentVolumeName")), str("Node", describe(spec, "nodeName")),
		boolean("Attached", describe(status, "attached")), ageColumn(),
	}
	k.Row = row(func(a *storagev1.VolumeAttachment) []any {
		return []any{
			a.Spec.Attacher, valueOr(a.Spec.Source.PersistentVolumeName, ""), a.Spec.NodeName, a.Status.Attached, age(a.CreationTimestamp),
		}
	})
	k.Default = defaults(defaulting.VolumeAttachment)
	divide(&k, false, rules[*storagev1.VolumeAttachment]{
		validate: validation.VolumeAttachment, validateUpdate: validation.VolumeAttachmentUpdate, needsVersion: true,
	}, rules[*storagev1.VolumeAttachment]{validateUpdate: validation.VolumeAttachmentUpdate, keepsMeta: true, needsVersion: true})
	return k
}

// VolumeAttributesClass declares what volumes can be made faster or slower with.
func VolumeAttributesClass() registry.Kind {
	k := declare[storagev1.VolumeAttributesClass, storagev1.VolumeAttributesClassList](storagev1.SchemeGroupVersion, "volumeattributesclasses", "vac")
	k.ReturnDeleted = true
	k.Columns = []metav1.TableColumnDefinition{str("DriverName", describe(storagev1.VolumeAttributesClass{}, "driverName")), ageColumn()}
	k.Row = row(func(c *storagev1.VolumeAttributesClass) []any { return []any{c.DriverName, age(c.CreationTimestamp)} })
	k.Strategy = rules[*storagev1.VolumeAttributesClass]{
		validate: validation.VolumeAttributesClass, validateUpdate: validation.VolumeAttributesClassUpdate,
	}.strategy()
	return k
}
