package validation

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// LimitRange validates bounds: their resources, and that the bounds of one
// resource leave something between them.
func LimitRange(l *corev1.LimitRange) field.ErrorList {
	p := meta(&l.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	seen := map[corev1.LimitType]bool{}
	for i := range l.Spec.Limits {
		item, at := &l.Spec.Limits[i], field.NewPath("spec", "limits").Index(i)
		limitType(&p, at.Child("type"), item.Type)
		if seen[item.Type] {
			p.duplicate(at.Child("type"), item.Type)
		}
		seen[item.Type] = true
		limitItem(&p, at, item)
	}
	return p.list
}

func limitType(p *problems, path *field.Path, t corev1.LimitType) {
	complaints := validation.IsQualifiedName(string(t))
	p.invalid(path, t, complaints...)
	known := t == corev1.LimitTypePod || t == corev1.LimitTypeContainer || t == corev1.LimitTypePersistentVolumeClaim
	if len(complaints) == 0 && !strings.Contains(string(t), "/") && !known {
		p.invalid(path, t, "must be a standard limit type or fully qualified")
	}
}

func limitItem(p *problems, path *field.Path, item *corev1.LimitRangeItem) {
	pod := item.Type == corev1.LimitTypePod
	names := map[corev1.ResourceName]bool{}
	for _, l := range []struct {
		name    string
		list    corev1.ResourceList
		notPods bool
	}{
		{"max", item.Max, false},
		{"min", item.Min, false},
		{"default", item.Default, true},
		{"defaultRequest", item.DefaultRequest, true},
		{"maxLimitRequestRatio", item.MaxLimitRequestRatio, false},
	} {
		at := path.Child(l.name)
		if l.notPods && pod {
			p.forbid(at, len(l.list) > 0, "may not be specified when `type` is 'Pod'")
			continue
		}
		for _, name := range sorted(l.list) {
			names[name] = true
			if pod || item.Type == corev1.LimitTypeContainer {
				containerResourceName(p, at.Key(string(name)), name)
			} else {
				resourceName(p, at.Key(string(name)), name)
			}
		}
	}
	_, least := item.Min[corev1.ResourceStorage]
	_, most := item.Max[corev1.ResourceStorage]
	if item.Type == corev1.LimitTypePersistentVolumeClaim && !least && !most {
		p.required(path.Child("limits"), "either minimum or maximum storage value is required, but neither was provided")
	}
	for _, name := range sorted(names) {
		limitOrder(p, path, item, name, pod)
	}
}

// bound is one of the amounts that a range sets for a resource.
type bound struct {
	resource.Quantity

	set bool
}

func boundOf(list corev1.ResourceList, name corev1.ResourceName) bound {
	q, ok := list[name]
	return bound{q, ok}
}

// limitOrder demands min ≤ default request ≤ default ≤ max of what is set.
func limitOrder(p *problems, path *field.Path, item *corev1.LimitRangeItem, name corev1.ResourceName, pod bool) {
	least, most := boundOf(item.Min, name), boundOf(item.Max, name)
	limit, request := boundOf(item.Default, name), boundOf(item.DefaultRequest, name)
	if pod {
		limit.set, request.set = false, false
	}
	for _, rule := range []struct {
		field        string
		shown        bound
		small, large bound
		words        [2]string
	}{
		{"min", least, least, most, [2]string{"min", "max"}},
		{"defaultRequest", request, least, request, [2]string{"min", "default request"}},
		{"defaultRequest", request, request, most, [2]string{"default request", "max"}},
		{"defaultRequest", request, request, limit, [2]string{"default request", "default limit"}},
		{"default", least, least, limit, [2]string{"min", "default"}},
		{"default", most, limit, most, [2]string{"default", "max"}},
	} {
		if rule.small.set && rule.large.set && rule.small.Cmp(rule.large.Quantity) > 0 {
			p.invalid(path.Child(rule.field).Key(string(name)), rule.shown.Quantity, fmt.Sprintf("%s value %s is greater than %s value %s",
				rule.words[0], rule.small.String(), rule.words[1], rule.large.String()))
		}
	}
	limitRatio(p, path.Child("maxLimitRequestRatio").Key(string(name)), boundOf(item.MaxLimitRequestRatio, name), least, most)
	if !overcommit(name) && limit.set && request.set && limit.Cmp(request.Quantity) != 0 {
		p.invalid(path.Child("defaultRequest").Key(string(name)), request.Quantity, fmt.Sprintf(
			"default value %s must equal to defaultRequest value %s in %s", limit.String(), request.String(), name))
	}
}

// limitRatio demands a ratio that limits and requests within the bounds can reach.
func limitRatio(p *problems, path *field.Path, ratio, least, most bound) {
	if !ratio.set {
		return
	}
	if ratio.Cmp(*resource.NewQuantity(1, resource.DecimalSI)) < 0 {
		p.invalid(path, ratio.Quantity, fmt.Sprintf("ratio %s is less than 1", ratio.String()))
	}
	if !least.set || !most.set {
		return
	}
	value, from, to := float64(ratio.Value()), least.Value(), most.Value()
	if ratio.Value() < resource.MaxMilliValue && from < resource.MaxMilliValue && to < resource.MaxMilliValue {
		value, from, to = float64(ratio.MilliValue())/1000, least.MilliValue(), most.MilliValue()
	}
	if reach := float64(to) / float64(from); value > reach {
		p.invalid(path, ratio.Quantity, fmt.Sprintf("ratio %s is greater than max/min = %f", ratio.String(), reach))
	}
}
