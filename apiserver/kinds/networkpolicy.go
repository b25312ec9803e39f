package kinds

import (
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// NetworkPolicy declares who may talk to whom.
func NetworkPolicy() registry.Kind {
	k := namespaced[networkingv1.NetworkPolicy, networkingv1.NetworkPolicyList](networkingv1.SchemeGroupVersion, "networkpolicies", "netpol")
	k.Columns = []metav1.TableColumnDefinition{str("Pod-Selector", describe(networkingv1.NetworkPolicySpec{}, "podSelector")), ageColumn()}
	k.Row = row(func(n *networkingv1.NetworkPolicy) []any {
		return []any{metav1.FormatLabelSelector(&n.Spec.PodSelector), age(n.CreationTimestamp)}
	})
	k.Default = defaults(defaulting.NetworkPolicy)
	count(&k, rules[*networkingv1.NetworkPolicy]{
		validate: validation.NetworkPolicy, validateUpdate: validation.NetworkPolicyUpdate,
		warn: func(n, _ *networkingv1.NetworkPolicy) []string { return warnNetworks(n) },
	}, "Spec")
	return k
}

// warnNetworks warns of networks that have more bits than their mask and the like.
func warnNetworks(n *networkingv1.NetworkPolicy) (warnings []string) {
	blocks := func(path *field.Path, peers []networkingv1.NetworkPolicyPeer) {
		for i := range peers {
			b, at := peers[i].IPBlock, path.Index(i).Child("ipBlock")
			if b == nil {
				continue
			}
			warnings = append(warnings, utilvalidation.GetWarningsForCIDR(at.Child("cidr"), b.CIDR)...)
			for j, except := range b.Except {
				warnings = append(warnings, utilvalidation.GetWarningsForCIDR(at.Child("except").Index(j), except)...)
			}
		}
	}
	for i := range n.Spec.Ingress {
		blocks(field.NewPath("spec", "ingress").Index(i).Child("from"), n.Spec.Ingress[i].From)
	}
	for i := range n.Spec.Egress {
		blocks(field.NewPath("spec", "egress").Index(i).Child("to"), n.Spec.Egress[i].To)
	}
	return warnings
}
