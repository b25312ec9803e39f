// Package authz decides who may do what: by the roles in the replica, and for
// nodes by what their pods need.
//
// Its invariant: it reads the local replica and nothing else, so that it
// decides without quorum and without asking anyone.
package authz

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Policy is the RBAC objects of one state.
type Policy struct {
	Roles               []*rbacv1.Role
	ClusterRoles        []*rbacv1.ClusterRole
	RoleBindings        []*rbacv1.RoleBinding
	ClusterRoleBindings []*rbacv1.ClusterRoleBinding
}

// RBAC authorizes by roles. It is safe for concurrent use.
type RBAC struct {
	load    func() Policy
	current atomic.Pointer[index]
	turn    sync.Mutex // held by who replaces current: what was read later stays
}

var (
	_ authorizer.Authorizer   = (*RBAC)(nil)
	_ authorizer.RuleResolver = (*RBAC)(nil)
)

// NewRBAC returns an authorizer by the policy that load reads.
func NewRBAC(load func() Policy) *RBAC { return &RBAC{load: load} }

// Refresh reads the policy anew. Whoever watches it calls this at each
// change; until the first call every decision reads it.
func (r *RBAC) Refresh() {
	r.turn.Lock()
	defer r.turn.Unlock()
	r.current.Store(compile(r.load()))
}

func (r *RBAC) index() *index {
	if i := r.current.Load(); i != nil {
		return i
	}
	return compile(r.load())
}

// Authorize implements authorizer.Authorizer.
func (r *RBAC) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	i := r.index()
	if i.cluster.allows(a) {
		return authorizer.DecisionAllow, "RBAC: allowed by a cluster role", nil
	}
	if ns := a.GetNamespace(); ns != "" {
		if g := i.namespaces[ns]; g != nil && g.allows(a) {
			return authorizer.DecisionAllow, "RBAC: allowed by a role in the namespace", nil
		}
	}
	return authorizer.DecisionNoOpinion, "", nil
}

// ConditionsAwareAuthorize implements authorizer.Authorizer.
func (r *RBAC) ConditionsAwareAuthorize(ctx context.Context, a authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(r.Authorize(ctx, a))
}

// EvaluateConditions implements authorizer.Authorizer.
func (*RBAC) EvaluateConditions(context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", authorizer.ErrorConditionEvaluationNotSupported
}

// Rules returns all rules that u has in namespace, cluster-wide ones included.
func (r *RBAC) Rules(u user.Info, namespace string) []rbacv1.PolicyRule {
	i := r.index()
	rules := i.cluster.rules(u)
	if g := i.namespaces[namespace]; g != nil && namespace != "" {
		rules = append(rules, g.rules(u)...)
	}
	return rules
}

// RoleRules returns the rules of a role that a binding in namespace refers to,
// and false if there is no such role.
func (r *RBAC) RoleRules(ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, bool) {
	rules, ok := r.index().roles[roleKey(ref, namespace)]
	return rules, ok
}

// RulesFor implements authorizer.RuleResolver.
func (r *RBAC) RulesFor(_ context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	var resources []authorizer.ResourceRuleInfo
	var paths []authorizer.NonResourceRuleInfo
	for _, rule := range r.Rules(u, namespace) {
		if len(rule.Resources) > 0 {
			resources = append(resources, &authorizer.DefaultResourceRuleInfo{
				Verbs: rule.Verbs, APIGroups: rule.APIGroups, Resources: rule.Resources, ResourceNames: rule.ResourceNames,
			})
		}
		if len(rule.NonResourceURLs) > 0 {
			paths = append(paths, &authorizer.DefaultNonResourceRuleInfo{Verbs: rule.Verbs, NonResourceURLs: rule.NonResourceURLs})
		}
	}
	return resources, paths, false, nil
}

// index is a policy by subject.
type index struct {
	cluster    *grants
	namespaces map[string]*grants
	roles      map[string][]rbacv1.PolicyRule
}

// grants are the rules that subjects have in one scope.
type grants struct {
	users, groups map[string][][]rbacv1.PolicyRule
}

func newGrants() *grants {
	return &grants{users: map[string][][]rbacv1.PolicyRule{}, groups: map[string][][]rbacv1.PolicyRule{}}
}

func compile(p Policy) *index {
	i := &index{cluster: newGrants(), namespaces: map[string]*grants{}, roles: map[string][]rbacv1.PolicyRule{}}
	for _, role := range p.ClusterRoles {
		i.roles["/"+role.Name] = aggregate(role, p.ClusterRoles)
	}
	for _, role := range p.Roles {
		i.roles[role.Namespace+"/"+role.Name] = role.Rules
	}
	for _, b := range p.ClusterRoleBindings {
		i.cluster.add(i.roles[roleKey(b.RoleRef, "")], b.Subjects, "")
	}
	for _, b := range p.RoleBindings {
		g := i.namespaces[b.Namespace]
		if g == nil {
			g = newGrants()
			i.namespaces[b.Namespace] = g
		}
		g.add(i.roles[roleKey(b.RoleRef, b.Namespace)], b.Subjects, b.Namespace)
	}
	return i
}

func roleKey(ref rbacv1.RoleRef, namespace string) string {
	if ref.Kind == "ClusterRole" {
		return "/" + ref.Name
	}
	return namespace + "/" + ref.Name
}

// aggregate returns the rules of role with those of the roles that it
// selects: whether or not a controller has written them into it yet.
func aggregate(role *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) []rbacv1.PolicyRule {
	if role.AggregationRule == nil {
		return role.Rules
	}
	rules := slices.Clone(role.Rules)
	for _, ls := range role.AggregationRule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&ls)
		if err != nil {
			continue // validation lets none through
		}
		for _, other := range all {
			if other.Name != role.Name && selector.Matches(labels.Set(other.Labels)) {
				rules = append(rules, aggregate(other, without(all, role))...)
			}
		}
	}
	return rules
}

func without(all []*rbacv1.ClusterRole, role *rbacv1.ClusterRole) []*rbacv1.ClusterRole {
	return slices.DeleteFunc(slices.Clone(all), func(r *rbacv1.ClusterRole) bool { return r == role })
}

func (g *grants) add(rules []rbacv1.PolicyRule, subjects []rbacv1.Subject, namespace string) {
	if len(rules) == 0 {
		return
	}
	for _, s := range subjects {
		switch s.Kind {
		case rbacv1.UserKind:
			g.users[s.Name] = append(g.users[s.Name], rules)
		case rbacv1.GroupKind:
			g.groups[s.Name] = append(g.groups[s.Name], rules)
		case rbacv1.ServiceAccountKind:
			ns := s.Namespace
			if ns == "" {
				ns = namespace
			}
			name := serviceaccount.MakeUsername(ns, s.Name)
			g.users[name] = append(g.users[name], rules)
		}
	}
}

func (g *grants) each(u user.Info, yield func([]rbacv1.PolicyRule) bool) bool {
	if slices.ContainsFunc(g.users[u.GetName()], yield) {
		return true
	}
	for _, group := range u.GetGroups() {
		if slices.ContainsFunc(g.groups[group], yield) {
			return true
		}
	}
	return false
}

func (g *grants) rules(u user.Info) (all []rbacv1.PolicyRule) {
	g.each(u, func(rules []rbacv1.PolicyRule) bool {
		all = append(all, rules...)
		return false
	})
	return all
}

func (g *grants) allows(a authorizer.Attributes) bool {
	if a.GetUser() == nil {
		return false
	}
	return g.each(a.GetUser(), func(rules []rbacv1.PolicyRule) bool {
		for i := range rules {
			if Allows(&rules[i], a) {
				return true
			}
		}
		return false
	})
}

// Allows reports whether one rule allows a request.
func Allows(rule *rbacv1.PolicyRule, a authorizer.Attributes) bool {
	if !has(rule.Verbs, a.GetVerb()) {
		return false
	}
	if !a.IsResourceRequest() {
		return slices.ContainsFunc(rule.NonResourceURLs, func(u string) bool {
			prefix, star := strings.CutSuffix(u, "*")
			return u == a.GetPath() || star && strings.HasPrefix(a.GetPath(), prefix)
		})
	}
	if !has(rule.APIGroups, a.GetAPIGroup()) || !hasResource(rule.Resources, a.GetResource(), a.GetSubresource()) {
		return false
	}
	return len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, a.GetName())
}

func has(set []string, s string) bool {
	return slices.Contains(set, "*") || slices.Contains(set, s)
}

func hasResource(set []string, resource, sub string) bool {
	if sub == "" {
		return has(set, resource)
	}
	return has(set, resource+"/"+sub) || slices.Contains(set, "*/"+sub)
}
