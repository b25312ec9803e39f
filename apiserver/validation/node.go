package validation

import (
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

const (
	taintsAnnotation = "scheduler.alpha.kubernetes.io/taints"
	podCIDRsFixed    = "node updates may not change podCIDR except from \"\" to valid"
)

// Node validates a node.
func Node(n *corev1.Node) field.ErrorList {
	p := clusterMeta(&n.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	nodeAnnotations(&p, n.Annotations)
	taints(&p, field.NewPath("metadata", "taints"), n.Spec.Taints) // where upstream reports them
	nodeResources(&p, n)
	if swap := n.Status.NodeInfo.Swap; swap != nil && swap.Capacity != nil {
		p.moreThanZero(field.NewPath("metadata", "nodeSwapStatus", "capacity"), *swap.Capacity) // where upstream reports it
	}
	declaredFeatures(&p, n.Status.DeclaredFeatures)
	podCIDRs(&p, field.NewPath("spec", "podCIDRs"), n.Spec.PodCIDRs)
	return p.list
}

func nodeAnnotations(p *problems, annotations map[string]string) {
	value := annotations[taintsAnnotation]
	if value == "" {
		return
	}
	path := field.NewPath("metadata", "annotations")
	var list []corev1.Taint
	if err := json.Unmarshal([]byte(value), &list); err != nil {
		p.invalid(path, taintsAnnotation, err.Error())
		return
	}
	taints(p, path.Child(taintsAnnotation), list)
}

func taints(p *problems, path *field.Path, list []corev1.Taint) {
	type key struct {
		effect corev1.TaintEffect
		key    string
	}
	seen := map[key]bool{}
	for i, t := range list {
		at := path.Index(i)
		p.labelName(at.Child("key"), t.Key)
		if complaints := validation.IsValidLabelValue(t.Value); len(complaints) > 0 {
			p.invalid(at.Child("value"), t.Value, strings.Join(complaints, ";"))
		}
		taintEffect(p, at.Child("effect"), t.Effect)
		k := key{t.Effect, t.Key}
		if seen[k] {
			twice := field.Duplicate(at, printed(t))
			twice.Detail = "taints must be unique by key and effect pair"
			p.add(twice)
		}
		seen[k] = true
	}
}

func nodeResources(p *problems, n *corev1.Node) {
	for _, name := range sorted(n.Status.Capacity) {
		p.quantity(field.NewPath("status", "capacity", string(name)), name, n.Status.Capacity[name])
	}
	for _, name := range sorted(n.Status.Allocatable) {
		p.quantity(field.NewPath("status", "allocatable", string(name)), name, n.Status.Allocatable[name])
	}
}

// declaredFeatures demands sorted names like MyFeature or MyFeature/itsPart.
func declaredFeatures(p *problems, list []string) {
	for i, name := range list {
		at := field.NewPath("status", "declaredFeatures").Index(i)
		if i > 0 && list[i-1] == name {
			p.duplicate(at, name)
		} else if i > 0 && list[i-1] > name {
			p.invalid(at, name, "list must be sorted alphabetically")
		}
		if len(name) > validation.DNS1123SubdomainMaxLength {
			p.invalid(at, name, fmt.Sprintf("invalid feature name %q: must be no more than %d characters", name, validation.DNS1123SubdomainMaxLength))
		} else if !matches(`^[A-Z][a-zA-Z0-9]*(/[a-zA-Z][a-zA-Z0-9]*)*$`, name) {
			p.invalid(at, name, fmt.Sprintf("invalid feature name %q: must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes", name))
		}
	}
}

func podCIDRs(p *problems, path *field.Path, list []string) {
	for i, cidr := range list {
		p.cidr(path.Index(i), cidr)
	}
	if len(list) < 2 {
		return
	}
	dual, err := netutils.IsDualStackCIDRStrings(list)
	if err != nil {
		p.add(field.InternalError(path, fmt.Errorf("invalid PodCIDRs. failed to check with dual stack with error:%v", err))) //nolint:errorlint // upstream's wording
	}
	if !dual || len(list) > 2 {
		p.invalid(path, list, "may specify no more than one CIDR for each IP family")
	}
}

// NodeUpdate validates a change of a node or of its status.
func NodeUpdate(n, old *corev1.Node) field.ErrorList {
	p := metaUpdate(&n.ObjectMeta, &old.ObjectMeta)
	nodeAnnotations(&p, n.Annotations)
	nodeResources(&p, n)
	declaredFeatures(&p, n.Status.DeclaredFeatures)
	seen := map[corev1.NodeAddress]bool{}
	for i, a := range n.Status.Addresses {
		if seen[a] {
			p.duplicate(field.NewPath("status", "addresses").Index(i), printed(a))
		}
		seen[a] = true
	}
	path := field.NewPath("spec")
	if had := old.Spec.PodCIDRs; len(had) > 0 && len(had) != len(n.Spec.PodCIDRs) {
		p.forbidden(path.Child("podCIDRs"), podCIDRsFixed)
	} else {
		for i := range had {
			p.forbid(path.Child("podCIDRs"), had[i] != n.Spec.PodCIDRs[i], podCIDRsFixed)
		}
	}
	if had := old.Spec.ProviderID; had != "" && n.Spec.ProviderID == "" {
		p.invalid(path.Child("providerID"), nil, "field cannot be cleared once set")
	} else if had != "" && n.Spec.ProviderID != had {
		p.invalid(path.Child("providerID"), nil, "field cannot be modified once set")
	}
	taints(&p, field.NewPath("metadata", "taints"), n.Spec.Taints)
	p.forbid(path.Child("externalID"), n.Spec.DoNotUseExternalID != old.Spec.DoNotUseExternalID, "may not be updated")
	return p.list
}
