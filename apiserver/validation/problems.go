// Package validation decides whether an object may be stored, as the v1 API
// decides it: the same field paths and the same words, because clients and
// people read both.
//
// Its invariant: every function is pure, never panics whatever a stranger
// sends, and returns nil or an empty list exactly when the object is valid.
package validation

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// strictAddresses refuses addresses that programs read differently, such as
// those with leading zeros, unless the object had them before.
const strictAddresses = true

// problems gathers what is wrong with an object.
type problems struct{ list field.ErrorList }

func (p *problems) add(errs ...*field.Error) { p.list = append(p.list, errs...) }

// invalid adds one error for each complaint about value.
func (p *problems) invalid(path *field.Path, value any, complaints ...string) {
	for _, c := range complaints {
		p.add(field.Invalid(path, value, c))
	}
}

func (p *problems) required(path *field.Path, detail string) { p.add(field.Required(path, detail)) }

func (p *problems) forbidden(path *field.Path, detail string) { p.add(field.Forbidden(path, detail)) }

func (p *problems) duplicate(path *field.Path, value any) { p.add(field.Duplicate(path, value)) }

// check holds value against a rule of formats.
func (p *problems) check(path *field.Path, value string, rule func(string) []string) {
	p.invalid(path, value, rule(value)...)
}

// name holds value against a rule for object names.
func (p *problems) name(path *field.Path, value string, rule apimachinery.ValidateNameFunc) {
	p.invalid(path, value, rule(value, false)...)
}

// requireFormat demands a value and its format.
func (p *problems) requireFormat(path *field.Path, value string, rule func(string) []string) {
	if value == "" {
		p.required(path, "")
		return
	}
	p.check(path, value, rule)
}

// nonNegative is the rule of counts.
func (p *problems) nonNegative(path *field.Path, value int64) {
	p.list = append(p.list, apimachinery.ValidateNonnegativeField(value, path)...)
}

// moreThanZero is positive in the words that some fields have for it.
func (p *problems) moreThanZero(path *field.Path, value int64) {
	if value <= 0 {
		p.add(field.Invalid(path, value, "must be greater than zero"))
	}
}

func (p *problems) positive(path *field.Path, value int64) {
	if value <= 0 {
		p.add(field.Invalid(path, value, "must be greater than 0"))
	}
}

// immutable demands that a field keep its value.
func (p *problems) immutable(path *field.Path, now, before any) {
	if !equality.Semantic.DeepEqual(before, now) {
		p.add(field.Invalid(path, printed(now), apimachinery.FieldImmutableErrorMsg))
	}
}

// fixed is immutable for fields that upstream's generated rules guard, which
// print no value.
func (p *problems) fixed(path *field.Path, now, before any) {
	if !equality.Semantic.DeepEqual(before, now) {
		p.add(field.Invalid(path, nil, apimachinery.FieldImmutableErrorMsg))
	}
}

// oneOf demands one of the allowed values, named in their order.
func oneOf[T ~string](p *problems, path *field.Path, value T, allowed ...T) {
	if !slices.Contains(allowed, value) {
		p.add(field.NotSupported(path, value, allowed))
	}
}

// requireOneOf is oneOf for a field that must be set.
func requireOneOf[T ~string](p *problems, path *field.Path, value T, allowed ...T) {
	if value == "" {
		p.required(path, "")
		return
	}
	oneOf(p, path, value, allowed...)
}

// sorted walks a map in the order of its keys, so that errors come in one order.
func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func deref[T any](v *T) T {
	if v == nil {
		var zero T
		return zero
	}
	return *v
}

// meta validates the metadata of a namespaced object.
func meta(m *metav1.ObjectMeta, rule apimachinery.ValidateNameFunc) problems {
	return problems{Meta(m, true, rule)}
}

// clusterMeta validates the metadata of a cluster-wide object.
func clusterMeta(m *metav1.ObjectMeta, rule apimachinery.ValidateNameFunc) problems {
	return problems{Meta(m, false, rule)}
}

// Meta validates metadata as upstream does for nearly all kinds: finalizers
// without a prefix must be those that Kubernetes itself knows.
func Meta(m *metav1.ObjectMeta, namespaced bool, rule apimachinery.ValidateNameFunc) field.ErrorList {
	return append(apimachinery.ValidateObjectMeta(m, namespaced, rule, field.NewPath("metadata")), knownFinalizers(m)...)
}

// MetaUpdate validates what may become of metadata.
func MetaUpdate(m, old *metav1.ObjectMeta) field.ErrorList {
	return append(bareMetaUpdate(m, old), knownFinalizers(m)...)
}

func knownFinalizers(m *metav1.ObjectMeta) (errs field.ErrorList) {
	for i, f := range m.Finalizers {
		errs = append(errs, KnownFinalizer(f, field.NewPath("metadata", "finalizers").Index(i))...)
	}
	return errs
}

// KnownFinalizer refuses a name without a prefix that is none of Kubernetes' own.
func KnownFinalizer(f string, path *field.Path) field.ErrorList {
	switch f {
	case string(corev1.FinalizerKubernetes), metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents:
		return nil
	}
	if strings.Contains(f, "/") {
		return nil
	}
	return field.ErrorList{field.Invalid(path, f, "name is neither a standard finalizer name nor is it fully qualified")}
}

// bareMeta and bareMetaUpdate lack the rule of finalizers: upstream does not
// ask for it in some groups.
func bareMeta(m *metav1.ObjectMeta, namespaced bool, rule apimachinery.ValidateNameFunc) problems {
	return problems{apimachinery.ValidateObjectMeta(m, namespaced, rule, field.NewPath("metadata"))}
}

func bareMetaUpdate(m, old *metav1.ObjectMeta) field.ErrorList {
	return apimachinery.ValidateObjectMetaUpdate(m, old, field.NewPath("metadata"))
}

// metaUpdate validates what may become of an object's metadata.
func metaUpdate(m, old *metav1.ObjectMeta) problems {
	return problems{MetaUpdate(m, old)}
}

// pathSegment is the rule of names that may hold anything a URL path may.
func pathSegment(name string, _ bool) []string { return content.IsPathSegmentName(name) }

// ip demands an IP address as old fields take it, which is not always the
// canonical form.
func (p *problems) ip(path *field.Path, value string, before ...string) {
	p.list = append(p.list, validation.IsValidIPForLegacyField(path, value, strictAddresses, before)...)
}

// cidr is ip for networks.
func (p *problems) cidr(path *field.Path, value string, before ...string) {
	p.list = append(p.list, validation.IsValidCIDRForLegacyField(path, value, strictAddresses, before)...)
}

func (p *problems) port(path *field.Path, value int32) {
	p.invalid(path, value, validation.IsValidPortNum(int(value))...)
}

// labelSelector validates a selector of labels.
func (p *problems) labelSelector(path *field.Path, s *metav1.LabelSelector) {
	p.list = append(p.list, metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, path)...)
}

func (p *problems) labels(path *field.Path, labels map[string]string) {
	p.list = append(p.list, metavalidation.ValidateLabels(labels, path)...)
}

func itoa(n int32) string { return strconv.Itoa(int(n)) }

// longName is the rule of names of objects whose rules upstream generates: it
// counts bytes, not characters.
func longName(name string, prefix bool) []string {
	if prefix {
		return apimachinery.NameIsDNSSubdomain(name, prefix)
	}
	return content.IsDNS1123Subdomain(name)
}
