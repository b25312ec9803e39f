package validation

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Role validates a role.
func Role(r *rbacv1.Role) field.ErrorList {
	p := meta(&r.ObjectMeta, pathSegment)
	policyRules(&p, r.Rules, true)
	return p.list
}

// RoleUpdate validates a change of a role.
func RoleUpdate(r, old *rbacv1.Role) field.ErrorList {
	return append(Role(r), metaUpdate(&r.ObjectMeta, &old.ObjectMeta).list...)
}

// ClusterRole validates a cluster role.
func ClusterRole(r *rbacv1.ClusterRole) field.ErrorList {
	p := clusterMeta(&r.ObjectMeta, pathSegment)
	policyRules(&p, r.Rules, false)
	if r.AggregationRule == nil {
		return p.list
	}
	path := field.NewPath("aggregationRule", "clusterRoleSelectors")
	if len(r.AggregationRule.ClusterRoleSelectors) == 0 {
		p.required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil")
	}
	for i := range r.AggregationRule.ClusterRoleSelectors {
		selector := &r.AggregationRule.ClusterRoleSelectors[i]
		p.labelSelector(path.Index(i), selector)
		if _, err := metav1.LabelSelectorAsSelector(selector); err != nil {
			p.invalid(path.Index(i), nil, "invalid label selector.") // upstream prints no value
		}
	}
	return p.list
}

// ClusterRoleUpdate validates a change of a cluster role.
func ClusterRoleUpdate(r, old *rbacv1.ClusterRole) field.ErrorList {
	return append(ClusterRole(r), metaUpdate(&r.ObjectMeta, &old.ObjectMeta).list...)
}

func policyRules(p *problems, rules []rbacv1.PolicyRule, namespaced bool) {
	for i := range rules {
		path, r := field.NewPath("rules").Index(i), &rules[i]
		if len(r.Verbs) == 0 {
			p.required(path.Child("verbs"), "")
		}
		urls := path.Child("nonResourceURLs")
		switch {
		case len(r.NonResourceURLs) > 0:
			if namespaced {
				p.invalid(urls, r.NonResourceURLs, "namespaced rules cannot apply to non-resource URLs")
			}
			if len(r.APIGroups) > 0 || len(r.Resources) > 0 || len(r.ResourceNames) > 0 {
				p.invalid(urls, r.NonResourceURLs, "rules cannot apply to both regular resources and non-resource URLs")
			}
		default:
			if len(r.APIGroups) == 0 {
				p.required(path.Child("apiGroups"), "resource rules must supply at least one api group")
			}
			if len(r.Resources) == 0 {
				p.required(path.Child("resources"), "resource rules must supply at least one resource")
			}
		}
	}
}

// RoleBinding validates a role binding.
func RoleBinding(b *rbacv1.RoleBinding) field.ErrorList {
	p := meta(&b.ObjectMeta, pathSegment)
	roleRef(&p, &b.RoleRef, "Role", "ClusterRole")
	subjects(&p, b.Subjects, true)
	return p.list
}

// RoleBindingUpdate validates a change of a role binding; what it binds to stays.
func RoleBindingUpdate(b, old *rbacv1.RoleBinding) field.ErrorList {
	p := problems{append(RoleBinding(b), metaUpdate(&b.ObjectMeta, &old.ObjectMeta).list...)}
	p.immutable(field.NewPath("roleRef"), b.RoleRef, old.RoleRef)
	return p.list
}

// ClusterRoleBinding validates a cluster role binding.
func ClusterRoleBinding(b *rbacv1.ClusterRoleBinding) field.ErrorList {
	p := clusterMeta(&b.ObjectMeta, pathSegment)
	roleRef(&p, &b.RoleRef, "ClusterRole")
	subjects(&p, b.Subjects, false)
	return p.list
}

// ClusterRoleBindingUpdate validates a change of a cluster role binding.
func ClusterRoleBindingUpdate(b, old *rbacv1.ClusterRoleBinding) field.ErrorList {
	p := problems{append(ClusterRoleBinding(b), metaUpdate(&b.ObjectMeta, &old.ObjectMeta).list...)}
	p.immutable(field.NewPath("roleRef"), b.RoleRef, old.RoleRef)
	return p.list
}

func roleRef(p *problems, r *rbacv1.RoleRef, kinds ...string) {
	path := field.NewPath("roleRef")
	oneOf(p, path.Child("apiGroup"), r.APIGroup, rbacv1.GroupName)
	if !slices.Contains(kinds, r.Kind) {
		p.add(field.NotSupported(path.Child("kind"), r.Kind, kinds))
	}
	if r.Name == "" {
		p.required(path.Child("name"), "")
		return
	}
	p.name(path.Child("name"), r.Name, pathSegment)
}

func subjects(p *problems, list []rbacv1.Subject, namespaced bool) {
	for i := range list {
		path, s := field.NewPath("subjects").Index(i), &list[i]
		if s.Name == "" {
			p.required(path.Child("name"), "")
		}
		switch s.Kind {
		case rbacv1.ServiceAccountKind:
			if s.Name != "" {
				p.name(path.Child("name"), s.Name, apimachinery.ValidateServiceAccountName)
			}
			oneOf(p, path.Child("apiGroup"), s.APIGroup, "")
			if !namespaced && s.Namespace == "" {
				p.required(path.Child("namespace"), "")
			}
		case rbacv1.UserKind, rbacv1.GroupKind:
			oneOf(p, path.Child("apiGroup"), s.APIGroup, rbacv1.GroupName)
		default:
			p.add(field.NotSupported(path.Child("kind"), s.Kind,
				[]string{rbacv1.ServiceAccountKind, rbacv1.UserKind, rbacv1.GroupKind}))
		}
	}
}
