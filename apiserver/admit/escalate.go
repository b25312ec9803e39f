package admit

import (
	"context"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/component-helpers/auth/rbac/validation"
)

// escalation lets nobody give away rights by roles that he has not himself,
// unless a role says that he may (verbs escalate and bind).
func (c Config) escalation(ctx context.Context, a admission.Attributes) error {
	if a.GetResource().Group != rbacv1.GroupName || a.GetSubresource() != "" {
		return nil
	}
	switch obj := a.GetObject().(type) {
	case *rbacv1.Role:
		return c.confirm(ctx, a, "escalate", obj.Name, obj.Rules)
	case *rbacv1.ClusterRole:
		rules := obj.Rules
		if obj.AggregationRule != nil {
			// What it will sum up cannot be known: only who has everything may.
			rules = append(slices.Clip(rules),
				rbacv1.PolicyRule{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}},
				rbacv1.PolicyRule{NonResourceURLs: []string{"*"}, Verbs: []string{"*"}})
		}
		return c.confirm(ctx, a, "escalate", obj.Name, rules)
	case *rbacv1.RoleBinding:
		return c.confirm(ctx, a, "bind", obj.RoleRef.Name, c.RBAC.RoleRules(obj.RoleRef, a.GetNamespace()))
	case *rbacv1.ClusterRoleBinding:
		return c.confirm(ctx, a, "bind", obj.RoleRef.Name, c.RBAC.RoleRules(obj.RoleRef, ""))
	}
	return nil
}

func (c Config) confirm(ctx context.Context, a admission.Attributes, verb, name string, rules []rbacv1.PolicyRule) error {
	resource := a.GetResource().Resource
	if verb == "bind" {
		resource = "clusterroles"
		if b, ok := a.GetObject().(*rbacv1.RoleBinding); ok && b.RoleRef.Kind == "Role" {
			resource = "roles"
		}
	}
	may, _, err := c.Authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: a.GetUserInfo(), Verb: verb, Namespace: a.GetNamespace(), APIGroup: rbacv1.GroupName, APIVersion: "*",
		Resource: resource, Name: name, ResourceRequest: true,
	})
	if may == authorizer.DecisionAllow {
		return nil
	}
	if err != nil {
		return err
	}
	covered, missing := validation.Covers(c.RBAC.Rules(a.GetUserInfo(), a.GetNamespace()), rules)
	if covered {
		return nil
	}
	return refuse(a, "user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%v",
		a.GetUserInfo().GetName(), a.GetUserInfo().GetGroups(), missing)
}
