package kinds

import (
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// IPAddress declares the records of used service addresses.
func IPAddress() registry.Kind {
	k := declare[networkingv1.IPAddress, networkingv1.IPAddressList](networkingv1.SchemeGroupVersion, "ipaddresses", "ip")
	k.Columns = []metav1.TableColumnDefinition{str("ParentRef", describe(networkingv1.IPAddressSpec{}, "parentRef")), ageColumn()}
	k.Row = row(func(a *networkingv1.IPAddress) []any {
		owner := none
		if ref := a.Spec.ParentRef; ref != nil {
			resource := schema.GroupResource{Group: ref.Group, Resource: ref.Resource}
			owner = strings.ToLower(resource.String())
			if ref.Namespace != "" {
				owner += "/" + ref.Namespace
			}
			owner += "/" + ref.Name
		}
		return []any{owner, age(a.CreationTimestamp)}
	})
	k.Strategy = rules[*networkingv1.IPAddress]{validate: validation.IPAddress, validateUpdate: validation.IPAddressUpdate}.strategy()
	return k
}

// ServiceCIDR declares the ranges of service addresses.
func ServiceCIDR() registry.Kind {
	k := declare[networkingv1.ServiceCIDR, networkingv1.ServiceCIDRList](networkingv1.SchemeGroupVersion, "servicecidrs")
	k.Columns = []metav1.TableColumnDefinition{str("CIDRs", describe(networkingv1.ServiceCIDRSpec{}, "cidrs")), ageColumn()}
	k.Row = row(func(c *networkingv1.ServiceCIDR) []any {
		return []any{strings.Join(c.Spec.CIDRs, ","), age(c.CreationTimestamp)}
	})
	divide(&k, false, rules[*networkingv1.ServiceCIDR]{
		validate: validation.ServiceCIDR, validateUpdate: validation.ServiceCIDRUpdate,
	}, rules[*networkingv1.ServiceCIDR]{validateUpdate: validation.ServiceCIDRStatusUpdate, keepsMeta: true})
	return k
}
