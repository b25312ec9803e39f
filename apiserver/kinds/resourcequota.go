package kinds

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// ResourceQuota declares how much a namespace may use in all.
func ResourceQuota() registry.Kind {
	k := namespaced[corev1.ResourceQuota, corev1.ResourceQuotaList](corev1.SchemeGroupVersion, "resourcequotas", "quota")
	k.ReturnDeleted = true
	k.Columns = []metav1.TableColumnDefinition{
		str("Request", "Request represents a minimum amount of cpu/memory that a container may consume."),
		str("Limit", "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node."),
		ageColumn(),
	}
	k.Row = row(quotaRow)
	k.Default = defaults(defaulting.ResourceQuota)
	divide(&k, false, rules[*corev1.ResourceQuota]{
		validate: validation.ResourceQuota, validateUpdate: validation.ResourceQuotaUpdate, warn: warnQuota,
	}, rules[*corev1.ResourceQuota]{validateUpdate: validation.ResourceQuotaStatusUpdate})
	return k
}

func quotaRow(q *corev1.ResourceQuota) []any {
	var requests, limits []string
	for _, name := range slices.Sorted(maps.Keys(q.Status.Hard)) {
		used, hard := q.Status.Used[name], q.Status.Hard[name]
		text := fmt.Sprintf("%s: %s/%s", name, used.String(), hard.String())
		if strings.HasPrefix(string(name), "limits.") {
			limits = append(limits, text)
		} else {
			requests = append(requests, text)
		}
	}
	return []any{strings.Join(requests, ", "), strings.Join(limits, ", "), age(q.CreationTimestamp)}
}

// warnQuota warns on creation of requests that may be more than the limits.
func warnQuota(q, old *corev1.ResourceQuota) (warnings []string) {
	if old != nil {
		return nil
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceStorage, corev1.ResourceEphemeralStorage} {
		from, to := "requests."+name, "limits."+name
		request, ok := q.Spec.Hard[from]
		if !ok && (name == corev1.ResourceCPU || name == corev1.ResourceMemory) {
			if request, ok = q.Spec.Hard[name]; ok {
				from = name
			}
		}
		limit, limited := q.Spec.Hard[to]
		if ok && limited && request.Cmp(limit) > 0 {
			warnings = append(warnings, fmt.Sprintf("ResourceQuota %s (%s) should be less than %s (%s)", from, request.String(), to, limit.String()))
		}
	}
	return warnings
}
