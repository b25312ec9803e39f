package validation

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

const mayNotChange = "may not change once set"

// clusterIPs validates addresses, families and how they fit together.
func clusterIPs(p *problems, path *field.Path, s, old *corev1.Service) {
	spec, at := &s.Spec, path.Child("clusterIPs")
	switch {
	case spec.ClusterIP == "" && len(spec.ClusterIPs) != 0:
		p.invalid(at, spec.ClusterIPs, "must be empty when `clusterIP` is not specified")
	case spec.ClusterIP != "" && len(spec.ClusterIPs) == 0:
		p.required(at, "")
	case spec.ClusterIP != "" && spec.ClusterIPs[0] != spec.ClusterIP:
		p.invalid(at, spec.ClusterIPs, "first value must match `clusterIP`")
	}
	seen := map[corev1.IPFamily]bool{}
	for i, family := range spec.IPFamilies {
		oneOf(p, path.Child("ipFamilies").Index(i), family, corev1.IPv4Protocol, corev1.IPv6Protocol)
		if seen[family] {
			p.duplicate(path.Child("ipFamilies").Index(i), family)
		}
		seen[family] = true
	}
	if policy := spec.IPFamilyPolicy; policy != nil {
		oneOf(p, path.Child("ipFamilyPolicy"), *policy, corev1.IPFamilyPolicyPreferDualStack,
			corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack)
	}
	if clusterIPFormats(p, at, s, old) {
		dualStack(p, at, s)
	}
}

// clusterIPFormats reports whether all addresses can be looked at further.
func clusterIPFormats(p *problems, at *field.Path, s, old *corev1.Service) bool {
	spec, good := &s.Spec, true
	var had []string
	if old != nil {
		had = old.Spec.ClusterIPs
	}
	for i, ip := range spec.ClusterIPs {
		if i == 0 && ip == corev1.ClusterIPNone {
			if len(spec.ClusterIPs) > 1 {
				good = false
				p.invalid(at, spec.ClusterIPs, "'None' must be the first and only value")
			}
			continue
		}
		errs := validation.IsValidIPForLegacyField(at.Index(i), ip, strictAddresses, had)
		good = good && len(errs) == 0
		p.add(errs...)
	}
	if len(spec.ClusterIPs) > 2 {
		p.invalid(at, spec.ClusterIPs, "may only hold up to 2 values")
	}
	return good
}

func dualStack(p *problems, at *field.Path, s *corev1.Service) {
	spec := &s.Spec
	if len(spec.ClusterIPs) > 1 {
		dual, err := netutils.IsDualStackIPStrings(spec.ClusterIPs)
		if err != nil {
			p.add(field.InternalError(at, fmt.Errorf("failed to check for dual stack with error:%v", err))) //nolint:errorlint // upstream's wording
		}
		if !dual {
			p.invalid(at, spec.ClusterIPs, "may specify no more than one IP for each IP family")
		}
	}
	if headless(s) {
		return
	}
	for i, ip := range spec.ClusterIPs {
		if i >= len(spec.IPFamilies) {
			return
		}
		six := netutils.IsIPv6String(ip)
		switch family := spec.IPFamilies[i]; {
		case family == corev1.IPv4Protocol && six, family == corev1.IPv6Protocol && !six:
			p.invalid(at.Index(i), ip, fmt.Sprintf("expected an %s value as indicated by `ipFamilies[%d]`", family, i))
		}
	}
}

func named(s *corev1.Service) bool { return s.Spec.Type == corev1.ServiceTypeExternalName }

func addressChange(p *problems, s, old *corev1.Service) {
	if named(s) || named(old) || headless(s) && headless(old) {
		return
	}
	now, had := s.Spec.ClusterIPs, old.Spec.ClusterIPs
	at := field.NewPath("spec", "clusterIPs")
	if len(now) == len(had) {
		for i := range had {
			if had[i] != now[i] {
				p.invalid(at.Index(i), now, mayNotChange)
			}
		}
		return
	}
	if len(now) == 0 {
		p.invalid(at.Index(0), now, "primary clusterIP can not be unset")
	}
	if len(had) > 0 && len(now) > 0 && now[0] != had[0] {
		p.invalid(at.Index(0), now, mayNotChange)
	}
	if len(now) == 1 && len(had) > 1 {
		singleStack(p, s, "must be set to 'SingleStack' when releasing the secondary clusterIP")
	}
}

func singleStack(p *problems, s *corev1.Service, complaint string) {
	if deref(s.Spec.IPFamilyPolicy) != corev1.IPFamilyPolicySingleStack {
		p.invalid(field.NewPath("spec", "ipFamilyPolicy"), s.Spec.IPFamilyPolicy, complaint)
	}
}

func familyChange(p *problems, s, old *corev1.Service) {
	if named(s) || named(old) || headless(s) || headless(old) {
		return
	}
	now, had := s.Spec.IPFamilies, old.Spec.IPFamilies
	first := field.NewPath("spec", "ipFamilies").Index(0)
	if len(now) == len(had) {
		for i := range had {
			if had[i] != now[i] {
				p.invalid(first, now, mayNotChange)
			}
		}
		return
	}
	if len(now) < len(had) && len(s.Spec.ClusterIPs) == 0 {
		p.invalid(first, now, "primary ipFamily can not be unset")
	}
	if len(now) > 0 && len(had) > 0 && now[0] != had[0] {
		p.invalid(first, s.Spec.ClusterIPs, mayNotChange)
	}
	if len(now) == 1 && len(had) > 1 {
		singleStack(p, s, "must be set to 'SingleStack' when releasing the secondary ipFamily")
	}
}
