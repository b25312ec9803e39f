package validation

import (
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

const maxServiceCIDRs = 2

// IPAddress validates the record of a used address, which is its name.
func IPAddress(a *networkingv1.IPAddress) field.ErrorList {
	p := clusterMeta(&a.ObjectMeta, func(name string, _ bool) (complaints []string) {
		for _, err := range validation.IsValidIP(&field.Path{}, name) {
			complaints = append(complaints, err.Detail)
		}
		return complaints
	})
	ref, at := a.Spec.ParentRef, field.NewPath("spec", "parentRef")
	if ref == nil {
		p.required(at, "")
		return p.list
	}
	if ref.Group != "" {
		p.check(at.Child("group"), ref.Group, validation.IsDNS1123Subdomain)
	}
	p.requireFormat(at.Child("resource"), ref.Resource, content.IsPathSegmentName)
	p.requireFormat(at.Child("name"), ref.Name, content.IsPathSegmentName)
	if ref.Namespace != "" {
		p.check(at.Child("namespace"), ref.Namespace, content.IsPathSegmentName)
	}
	return p.list
}

// IPAddressUpdate validates a change of an address's record; whose it is stays.
func IPAddressUpdate(a, old *networkingv1.IPAddress) field.ErrorList {
	p := problems{IPAddress(a)}
	p.add(metaUpdate(&a.ObjectMeta, &old.ObjectMeta).list...)
	p.fixed(field.NewPath("spec", "parentRef"), a.Spec.ParentRef, old.Spec.ParentRef)
	return p.list
}

// ServiceCIDR validates a range of service addresses.
func ServiceCIDR(c *networkingv1.ServiceCIDR) field.ErrorList {
	p := clusterMeta(&c.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	serviceCIDRs(&p, &c.Spec)
	return p.list
}

func serviceCIDRs(p *problems, s *networkingv1.ServiceCIDRSpec) {
	at := field.NewPath("spec", "cidrs")
	switch {
	case len(s.CIDRs) == 0:
		p.required(at, "at least one CIDR required")
		return
	case len(s.CIDRs) > maxServiceCIDRs:
		p.invalid(at, printed(s), "may only hold up to 2 values")
		return
	}
	families := map[netutils.IPFamily]int{}
	for i, cidr := range s.CIDRs {
		p.add(validation.IsValidCIDR(at.Index(i), cidr)...)
		families[netutils.IPFamilyOfCIDRString(cidr)]++
	}
	if families[netutils.IPv4] > 1 || families[netutils.IPv6] > 1 {
		p.invalid(at, s.CIDRs, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64")
	}
}

// ServiceCIDRUpdate validates a change of a range: it may only get its second
// family.
func ServiceCIDRUpdate(c, old *networkingv1.ServiceCIDR) field.ErrorList {
	p := metaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	at, now, before := field.NewPath("spec", "cidrs"), c.Spec.CIDRs, old.Spec.CIDRs
	grown := len(before) == 1 && len(now) == maxServiceCIDRs
	if len(now) != len(before) && !grown {
		p.invalid(at, now, apimachinery.FieldImmutableErrorMsg)
		return p.list
	}
	for i, cidr := range before {
		if now[i] != cidr {
			p.invalid(at.Index(i), now[i], apimachinery.FieldImmutableErrorMsg)
		}
	}
	if grown {
		serviceCIDRs(&p, &c.Spec)
	}
	return p.list
}

// ServiceCIDRStatusUpdate validates a change of a range's state.
func ServiceCIDRStatusUpdate(c, old *networkingv1.ServiceCIDR) field.ErrorList {
	return metaUpdate(&c.ObjectMeta, &old.ObjectMeta).list
}
