package validation

import (
	"net"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// policyCheck is what a network policy is held against; an older one may have
// had labels and networks that are refused today.
type policyCheck struct {
	*problems

	anyValue bool
	before   []string
}

// NetworkPolicy validates a network policy.
func NetworkPolicy(n *networkingv1.NetworkPolicy) field.ErrorList {
	p := meta(&n.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	(&policyCheck{problems: &p}).check(&n.Spec)
	return p.list
}

// NetworkPolicyUpdate validates a change of a network policy.
func NetworkPolicyUpdate(n, old *networkingv1.NetworkPolicy) field.ErrorList {
	p := metaUpdate(&n.ObjectMeta, &old.ObjectMeta)
	c := &policyCheck{problems: &p}
	c.anyValue = len(metavalidation.ValidateLabelSelector(&old.Spec.PodSelector, metavalidation.LabelSelectorValidationOptions{}, nil)) > 0
	keep := func(peers []networkingv1.NetworkPolicyPeer) {
		for _, peer := range peers {
			if peer.IPBlock != nil {
				c.before = append(append(c.before, peer.IPBlock.CIDR), peer.IPBlock.Except...)
			}
		}
	}
	for i := range old.Spec.Ingress {
		keep(old.Spec.Ingress[i].From)
	}
	for i := range old.Spec.Egress {
		keep(old.Spec.Egress[i].To)
	}
	c.check(&n.Spec)
	return p.list
}

func (c *policyCheck) selector(path *field.Path, s *metav1.LabelSelector) {
	c.add(metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: c.anyValue}, path)...)
}

func (c *policyCheck) check(s *networkingv1.NetworkPolicySpec) {
	path := field.NewPath("spec")
	c.selector(path.Child("podSelector"), &s.PodSelector)
	for i := range s.Ingress {
		at := path.Child("ingress").Index(i)
		c.ports(at.Child("ports"), s.Ingress[i].Ports)
		c.peers(at.Child("from"), s.Ingress[i].From)
	}
	for i := range s.Egress {
		at := path.Child("egress").Index(i)
		c.ports(at.Child("ports"), s.Egress[i].Ports)
		c.peers(at.Child("to"), s.Egress[i].To)
	}
	if types := path.Child("policyTypes"); len(s.PolicyTypes) > 2 {
		c.invalid(types, &s.PolicyTypes, "may not specify more than two policyTypes")
	} else {
		for i, t := range s.PolicyTypes {
			oneOf(c.problems, types.Index(i), t, networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress)
		}
	}
}

func (c *policyCheck) ports(path *field.Path, list []networkingv1.NetworkPolicyPort) {
	for i := range list {
		p, at := &list[i], path.Index(i)
		if p.Protocol != nil {
			oneOf(c.problems, at.Child("protocol"), *p.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
		}
		last := at.Child("endPort")
		switch {
		case p.Port == nil:
			if p.EndPort != nil {
				c.invalid(last, *p.EndPort, "may not be specified when `port` is not specified")
			}
		case p.Port.Type == intstr.Int:
			c.port(at.Child("port"), p.Port.IntVal)
			if p.EndPort != nil {
				if *p.EndPort < p.Port.IntVal {
					c.invalid(last, *p.EndPort, "must be greater than or equal to `port`")
				}
				c.port(last, *p.EndPort)
			}
		default:
			if p.EndPort != nil {
				c.invalid(last, *p.EndPort, "may not be specified when `port` is non-numeric")
			}
			c.problems.check(at.Child("port"), p.Port.StrVal, validation.IsValidPortName)
		}
	}
}

func (c *policyCheck) peers(path *field.Path, list []networkingv1.NetworkPolicyPeer) {
	for i := range list {
		peer, at := &list[i], path.Index(i)
		selected := false
		if peer.PodSelector != nil {
			selected = true
			c.selector(at.Child("podSelector"), peer.PodSelector)
		}
		if peer.NamespaceSelector != nil {
			selected = true
			c.selector(at.Child("namespaceSelector"), peer.NamespaceSelector)
		}
		if peer.IPBlock != nil {
			c.block(at.Child("ipBlock"), peer.IPBlock)
		} else if !selected {
			c.required(at, "must specify a peer")
		}
		c.forbid(at, selected && peer.IPBlock != nil, "may not specify both ipBlock and another peer")
	}
}

func (c *policyCheck) block(path *field.Path, b *networkingv1.IPBlock) {
	if b.CIDR == "" {
		c.required(path.Child("cidr"), "")
		return
	}
	c.cidr(path.Child("cidr"), b.CIDR, c.before...)
	_, whole, err := netutils.ParseCIDRSloppy(b.CIDR)
	if err != nil {
		return
	}
	for i, text := range b.Except {
		at := path.Child("except").Index(i)
		c.cidr(at, text, c.before...)
		if _, part, err := netutils.ParseCIDRSloppy(text); err == nil && !strictlyWithin(part, whole) {
			c.invalid(at, text, "must be a strict subset of `cidr`")
		}
	}
}

func strictlyWithin(part, whole *net.IPNet) bool {
	small, _ := part.Mask.Size()
	large, _ := whole.Mask.Size()
	return whole.Contains(part.IP) && large < small
}
