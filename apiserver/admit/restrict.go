package admit

import (
	"context"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/component-helpers/auth/rbac/validation"

	"skein.dev/skein/apiserver/authz"
)

// nodeRestriction keeps a node to its own Node and its own pods. It is a first
// form: labels under the node-restriction prefix are refused, other labels
// and taints are the node's to set.
func (c Config) nodeRestriction(_ context.Context, a admission.Attributes) error {
	node, ok := authz.NodeName(a.GetUserInfo())
	if !ok {
		return nil
	}
	switch {
	case is(a, "", "nodes", "") || is(a, "", "nodes", "status"):
		return restrictNode(node, a)
	case a.GetResource().Resource == "pods" && a.GetResource().Group == "":
		return c.restrictPod(node, a)
	case is(a, "", "serviceaccounts", "token"):
		return c.restrictToken(node, a)
	}
	return nil
}

func restrictNode(node string, a admission.Attributes) error {
	n, _ := a.GetObject().(*corev1.Node)
	name := a.GetName()
	if a.GetOperation() == admission.Create && n != nil {
		name = n.Name
	}
	if name != node {
		return refuse(a, "node %q is not allowed to modify node %q", node, name)
	}
	if n == nil {
		return nil
	}
	old, _ := a.GetOldObject().(*corev1.Node)
	for k, v := range n.Labels {
		if strings.Contains(k, "node-restriction.kubernetes.io/") && (old == nil || old.Labels[k] != v) {
			return refuse(a, "is not allowed to modify labels: %s", k)
		}
	}
	return nil
}

func (c Config) restrictPod(node string, a admission.Attributes) error {
	switch a.GetOperation() {
	case admission.Create:
		switch obj := a.GetObject().(type) {
		case *corev1.Pod:
			if _, mirror := obj.Annotations[corev1.MirrorPodAnnotationKey]; !mirror {
				return refuse(a, "pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, node)
			}
			if obj.Spec.NodeName != node {
				return refuse(a, "node %q can only create pods with spec.nodeName set to itself", node)
			}
			return nil
		case *policyv1.Eviction:
			return c.ownPod(node, a)
		}
		return refuse(a, "unexpected request from node %q", node)
	default:
		return c.ownPod(node, a)
	}
}

func (c Config) ownPod(node string, a admission.Attributes) error {
	p := c.Reader.Pod(a.GetNamespace(), a.GetName())
	if p == nil || p.Spec.NodeName != node {
		return refuse(a, "node %q can only change pods with spec.nodeName set to itself", node)
	}
	return nil
}

// restrictToken lets a node ask only for tokens that die with a pod of its own.
func (c Config) restrictToken(node string, a admission.Attributes) error {
	req, ok := a.GetObject().(*authenticationv1.TokenRequest)
	if !ok {
		return nil
	}
	ref := req.Spec.BoundObjectRef
	if ref == nil || ref.Kind != "Pod" || ref.Name == "" || ref.UID == "" {
		return refuse(a, "node requested token not bound to a pod")
	}
	p := c.Reader.Pod(a.GetNamespace(), ref.Name)
	if p == nil || p.UID != ref.UID || p.Spec.NodeName != node {
		return refuse(a, "node requested token bound to a pod scheduled on a different node")
	}
	return nil
}

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
