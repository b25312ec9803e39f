package validation

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// claimTemplateMeta refuses all metadata of a template but labels and
// annotations, which alone are copied.
func claimTemplateMeta(p *problems, path *field.Path, m *metav1.ObjectMeta) {
	v := reflect.ValueOf(*m)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if name != "Annotations" && name != "Labels" && !v.Field(i).IsZero() {
			p.forbidden(path.Child(strings.ToLower(name[:1])+name[1:]), "cannot be set")
		}
	}
}

func (p *problems) positiveQuantity(path *field.Path, q resource.Quantity) {
	if q.Sign() <= 0 {
		p.invalid(path, q.String(), "must be greater than zero")
	}
}

func accessModes(p *problems, path *field.Path, modes []corev1.PersistentVolumeAccessMode) {
	alone, others := false, false
	for _, mode := range modes {
		oneOf(p, path, mode, corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod)
		switch mode {
		case corev1.ReadWriteOncePod:
			alone = true
		case corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce:
			others = true
		default:
		}
	}
	p.forbid(path, alone && others, "may not use ReadWriteOncePod with other access modes")
}

// claimSpec validates a claim. anyGroup tolerates API groups that are none in
// what the claim is filled from.
func claimSpec(p *problems, path *field.Path, s *corev1.PersistentVolumeClaimSpec, anyGroup bool) {
	if len(s.AccessModes) == 0 {
		p.required(path.Child("accessModes"), "at least 1 access mode is required")
	}
	if s.Selector != nil {
		p.labelSelector(path.Child("selector"), s.Selector)
	}
	accessModes(p, path.Child("accessModes"), s.AccessModes)
	at := path.Child("resources").Key(string(corev1.ResourceStorage))
	if q, ok := s.Resources.Requests[corev1.ResourceStorage]; ok {
		p.positiveQuantity(at, q)
	} else {
		p.required(at, "")
	}
	if name := deref(s.StorageClassName); name != "" {
		p.name(path.Child("storageClassName"), name, apimachinery.NameIsDNSSubdomain)
	}
	volumeMode(p, path.Child("volumeMode"), s.VolumeMode)
	dataSources(p, path, s, anyGroup)
	if name := deref(s.VolumeAttributesClassName); name != "" {
		p.name(path.Child("volumeAttributesClassName"), name, apimachinery.NameIsDNSSubdomain)
	}
}

func volumeMode(p *problems, path *field.Path, mode *corev1.PersistentVolumeMode) {
	if mode != nil {
		oneOf(p, path, *mode, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)
	}
}

func dataSources(p *problems, path *field.Path, s *corev1.PersistentVolumeClaimSpec, anyGroup bool) {
	source := func(at *field.Path, group *string, kind, name string) {
		p.need(at, "name", name)
		p.need(at, "kind", kind)
		if deref(group) == "" && kind != "PersistentVolumeClaim" {
			p.invalid(at, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup")
		}
		if deref(group) != "" && !anyGroup {
			p.check(at.Child("apiGroup"), *group, validation.IsDNS1123Subdomain)
		}
	}
	one, ref := s.DataSource, s.DataSourceRef
	if one != nil {
		source(path.Child("dataSource"), one.APIGroup, one.Kind, one.Name)
	}
	if ref == nil {
		return
	}
	at := path.Child("dataSourceRef")
	source(at, ref.APIGroup, ref.Kind, ref.Name)
	elsewhere := deref(ref.Namespace) != ""
	if elsewhere {
		p.name(at.Child("namespace"), *ref.Namespace, apimachinery.ValidateNamespaceName)
	}
	switch {
	case one == nil:
	case elsewhere:
		p.invalid(path, path.Child("dataSource"), "may not be specified when dataSourceRef.namespace is specified")
	case !equality.Semantic.DeepEqual(one.APIGroup, ref.APIGroup) || one.Kind != ref.Kind || one.Name != ref.Name:
		p.invalid(path, path.Child("dataSource"), "must match dataSourceRef")
	}
}
