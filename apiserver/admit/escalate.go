package admit

import (
	"context"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/component-helpers/auth/rbac/validation"
)

// escalation lets nobody give away rights by roles that he has not himself,
// unless a role says that he may (verbs escalate and bind).
func (c Config) escalation(ctx context.Context, a admission.Attributes) error {
	if a.GetResource().Group != rbacv1.GroupName || a.GetSubresource() != "" || onlyOwned(a.GetOldObject(), a.GetObject()) {
		return nil
	}
	switch obj := a.GetObject().(type) {
	case *rbacv1.Role:
		return c.confirm(ctx, a, obj.Rules)
	case *rbacv1.ClusterRole:
		rules := obj.Rules
		old, _ := a.GetOldObject().(*rbacv1.ClusterRole)
		if sumsUp(obj) || sumsUp(old) {
			// What it will sum up cannot be known: only who has everything may.
			rules = append(slices.Clip(rules),
				rbacv1.PolicyRule{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}},
				rbacv1.PolicyRule{NonResourceURLs: []string{"*"}, Verbs: []string{"*"}})
		}
		return c.confirm(ctx, a, rules)
	case *rbacv1.RoleBinding:
		return c.confirmBinding(ctx, a, obj.RoleRef)
	case *rbacv1.ClusterRoleBinding:
		return c.confirmBinding(ctx, a, obj.RoleRef)
	}
	return nil
}

func sumsUp(r *rbacv1.ClusterRole) bool {
	return r != nil && r.AggregationRule != nil && len(r.AggregationRule.ClusterRoleSelectors) > 0
}

// onlyOwned reports whether an update changes no more than the garbage
// collector must be able to, which has none of the rights.
func onlyOwned(old, obj runtime.Object) bool {
	if old == nil || obj == nil {
		return false
	}
	obj = obj.DeepCopyObject()
	is, err := meta.Accessor(obj)
	was, err2 := meta.Accessor(old)
	if err != nil || err2 != nil {
		return false
	}
	is.SetOwnerReferences(was.GetOwnerReferences())
	is.SetFinalizers(was.GetFinalizers())
	is.SetManagedFields(was.GetManagedFields())
	return equality.Semantic.DeepEqual(old, obj)
}

// confirmBinding lets a role be bound that exists: what it will hold otherwise
// nobody knows.
func (c Config) confirmBinding(ctx context.Context, a admission.Attributes, ref rbacv1.RoleRef) error {
	resource := "clusterroles"
	if ref.Kind == "Role" {
		resource = "roles"
	}
	if ok, err := c.lets(ctx, a, "bind", resource, ref.Name); ok || err != nil {
		return err
	}
	rules, ok := c.RBAC.RoleRules(ref, a.GetNamespace())
	if !ok { // it may have been made through another peer a moment ago
		if err := c.Reader.CatchUp(ctx); err != nil {
			return err
		}
		c.RBAC.Refresh()
		if rules, ok = c.RBAC.RoleRules(ref, a.GetNamespace()); !ok {
			return apierrors.NewNotFound(schema.GroupResource{Group: rbacv1.GroupName, Resource: resource}, ref.Name)
		}
	}
	return c.covers(a, rules)
}

func (c Config) confirm(ctx context.Context, a admission.Attributes, rules []rbacv1.PolicyRule) error {
	if ok, err := c.lets(ctx, a, "escalate", a.GetResource().Resource, a.GetName()); ok || err != nil {
		return err
	}
	return c.covers(a, rules)
}

// lets reports whether a role lets the user do what verb says beyond his rights.
func (c Config) lets(ctx context.Context, a admission.Attributes, verb, resource, name string) (bool, error) {
	may, _, err := c.Authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: a.GetUserInfo(), Verb: verb, Namespace: a.GetNamespace(), APIGroup: rbacv1.GroupName, APIVersion: "*",
		Resource: resource, Name: name, ResourceRequest: true,
	})
	return may == authorizer.DecisionAllow, err
}

func (c Config) covers(a admission.Attributes, rules []rbacv1.PolicyRule) error {
	covered, missing := validation.Covers(c.RBAC.Rules(a.GetUserInfo(), a.GetNamespace()), rules)
	if covered {
		return nil
	}
	return refuse(a, "user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%v",
		a.GetUserInfo().GetName(), a.GetUserInfo().GetGroups(), missing)
}
