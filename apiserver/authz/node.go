package authz

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// NodeName returns the node that u is, if it is one.
func NodeName(u user.Info) (string, bool) {
	if u == nil || !slices.Contains(u.GetGroups(), user.NodesGroup) {
		return "", false
	}
	return strings.CutPrefix(u.GetName(), "system:node:")
}

// Objects are those of the replica; a resource is "group/resource". Nobody
// changes what they return.
type Objects interface {
	// Get returns nil if there is none of the name.
	Get(resource, namespace, name string) runtime.Object
	// Each yields the objects of a namespace, of all if it is empty.
	Each(resource, namespace string) iter.Seq[runtime.Object]
}

// Node lets each node do what a kubelet must, to its own objects and to what
// the pods bound to it refer to. It follows references when it is asked
// instead of keeping a graph of them: pods are at hand, and questions of
// kubelets that run beside their API server never come here.
type Node struct{ Objects Objects }

var (
	_ authorizer.Authorizer   = (*Node)(nil)
	_ authorizer.RuleResolver = (*Node)(nil)
)

// RulesFor implements authorizer.RuleResolver: what a node may do cannot be
// listed.
func (*Node) RulesFor(_ context.Context, u user.Info, _ string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	if _, ok := NodeName(u); ok {
		return nil, nil, true, errors.New("node authorizer does not support user rule resolution")
	}
	return nil, nil, false, nil
}

// ConditionsAwareAuthorize implements authorizer.Authorizer.
func (n *Node) ConditionsAwareAuthorize(ctx context.Context, a authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(n.Authorize(ctx, a))
}

// EvaluateConditions implements authorizer.Authorizer.
func (*Node) EvaluateConditions(context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", authorizer.ErrorConditionEvaluationNotSupported
}

// Authorize implements authorizer.Authorizer.
func (n *Node) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	node, ok := NodeName(a.GetUser())
	if !ok {
		return authorizer.DecisionNoOpinion, "", nil
	}
	if node == "" {
		return authorizer.DecisionNoOpinion, "unknown node for user \"" + a.GetUser().GetName() + "\"", nil
	}
	if !a.IsResourceRequest() {
		return authorizer.DecisionNoOpinion, "", nil
	}
	if n.allows(node, a) {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "no relationship found between node '" + node + "' and this object", nil
}

func one(verb string, of ...string) bool { return slices.Contains(of, verb) }

func reads(verb string) bool { return one(verb, "get", "list", "watch") }

// keeps are the verbs of who has one object of its own.
func keeps(verb string) bool { return one(verb, "get", "create", "update", "patch", "delete") }

func (n *Node) allows(node string, a authorizer.Attributes) bool {
	verb, name, sub, namespace := a.GetVerb(), a.GetName(), a.GetSubresource(), a.GetNamespace()
	plain := sub == ""
	switch a.GetAPIGroup() + "/" + a.GetResource() {
	case "/nodes":
		// A list or watch has a name when its field selector has one. What is
		// created has none yet: admission looks at it.
		return plain && (verb == "create" || name == node && (reads(verb) || one(verb, "update", "patch"))) ||
			sub == "status" && name == node && one(verb, "update", "patch")
	case "/pods":
		return n.allowsPod(node, a)
	case "/services", "node.k8s.io/runtimeclasses", "storage.k8s.io/csidrivers", "certificates.k8s.io/clustertrustbundles":
		return plain && reads(verb)
	case "/endpoints":
		return plain && verb == "get"
	case "/events", "events.k8s.io/events":
		return plain && one(verb, "create", "patch", "update")
	case "coordination.k8s.io/leases":
		return plain && namespace == corev1.NamespaceNodeLease && keeps(verb) && (name == node || verb == "create")
	case "storage.k8s.io/csinodes":
		return plain && keeps(verb) && (name == node || verb == "create")
	case "authentication.k8s.io/tokenreviews", "authorization.k8s.io/subjectaccessreviews", "authorization.k8s.io/localsubjectaccessreviews":
		return plain && verb == "create"
	case "certificates.k8s.io/certificatesigningrequests":
		return plain && (verb == "create" || reads(verb))
	case "certificates.k8s.io/podcertificaterequests":
		return plain && (verb == "create" || verb != "get" && reads(verb) && selects(a, "spec.nodeName", node) ||
			verb == "get" && n.ofNode(node, a))
	case "resource.k8s.io/resourceslices":
		return plain && (verb == "create" || one(verb, "list", "watch", "deletecollection") && selects(a, "spec.nodeName", node) ||
			one(verb, "get", "update", "patch", "delete") && n.ofNode(node, a))
	case "storage.k8s.io/volumeattachments":
		return plain && verb == "get" && n.ofNode(node, a)
	case "/persistentvolumes":
		return plain && verb == "get" && n.mounts(node, name)
	case "resource.k8s.io/resourceclaims":
		return plain && verb == "get" && n.refers(node, a)
	case "/persistentvolumeclaims":
		return (plain && verb == "get" || sub == "status" && one(verb, "update", "patch")) && n.refers(node, a)
	case "/serviceaccounts":
		return (plain && verb == "get" || sub == "token" && verb == "create") && n.refers(node, a)
	case "/configmaps":
		return plain && reads(verb) && n.refers(node, a)
	case "/secrets":
		return plain && reads(verb) && (n.refers(node, a) || n.opens(node, namespace, name))
	}
	return false
}

func (n *Node) allowsPod(node string, a authorizer.Attributes) bool {
	verb := a.GetVerb()
	if a.GetSubresource() == "" && (verb == "create" || one(verb, "list", "watch") && selects(a, "spec.nodeName", node)) {
		return true // admission looks at what is created
	}
	mine := a.GetSubresource() == "" && (verb == "delete" || reads(verb)) ||
		a.GetSubresource() == "status" && one(verb, "update", "patch") ||
		a.GetSubresource() == "eviction" && verb == "create"
	if !mine || a.GetName() == "" {
		return false
	}
	p, ok := n.Objects.Get("/pods", a.GetNamespace(), a.GetName()).(*corev1.Pod)
	return ok && p.Spec.NodeName == node
}

// selects reports whether a request asks only for what has the value in a field.
func selects(a authorizer.Attributes, field, value string) bool {
	all, err := a.GetFieldSelector()
	if err != nil {
		return false
	}
	for _, r := range all {
		if r.Field == field && r.Operator == selection.Equals && r.Value == value {
			return true
		}
	}
	return false
}

// ofNode reports whether the named object says that it is of the node.
func (n *Node) ofNode(node string, a authorizer.Attributes) bool {
	if a.GetName() == "" {
		return false
	}
	switch o := n.Objects.Get(a.GetAPIGroup()+"/"+a.GetResource(), a.GetNamespace(), a.GetName()).(type) {
	case *storagev1.VolumeAttachment:
		return o.Spec.NodeName == node
	case *resourcev1.ResourceSlice:
		return o.Spec.NodeName != nil && *o.Spec.NodeName == node
	case *certificatesv1.PodCertificateRequest:
		return string(o.Spec.NodeName) == node
	}
	return false
}
