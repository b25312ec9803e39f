package authz

import (
	"context"
	"iter"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
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

// Node lets each node do what a kubelet must, to its own objects and to what
// the pods bound to it refer to.
type Node struct {
	// Pods yields the pods of a namespace, of all if it is empty.
	Pods func(namespace string) iter.Seq[*corev1.Pod]
}

var _ authorizer.Authorizer = (*Node)(nil)

// ConditionsAwareAuthorize implements authorizer.Authorizer.
func (n *Node) ConditionsAwareAuthorize(ctx context.Context, a authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(n.Authorize(ctx, a))
}

// EvaluateConditions implements authorizer.Authorizer.
func (*Node) EvaluateConditions(context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", authorizer.ErrorConditionEvaluationNotSupported
}

const readVerbs = "get list watch"

func reads(verb string) bool { return slices.Contains(strings.Fields(readVerbs), verb) }

// Authorize implements authorizer.Authorizer.
func (n *Node) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	node, ok := NodeName(a.GetUser())
	if !ok || !a.IsResourceRequest() {
		return authorizer.DecisionNoOpinion, "", nil
	}
	if n.allows(node, a) {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "node '" + node + "': no relationship found between node and this object", nil
}

func (n *Node) allows(node string, a authorizer.Attributes) bool {
	verb, name := a.GetVerb(), a.GetName()
	switch a.GetAPIGroup() + "/" + a.GetResource() {
	case "/nodes":
		// A list or watch has a name when its field selector has one.
		if sub := a.GetSubresource(); sub != "" && sub != "status" {
			return false
		}
		return verb == "create" || name == node && (reads(verb) || verb == "update" || verb == "patch")
	case "/pods":
		return n.allowsPod(node, a)
	case "/services", "/endpoints", "discovery.k8s.io/endpointslices", "node.k8s.io/runtimeclasses", "storage.k8s.io/csidrivers":
		return reads(verb)
	case "/events", "events.k8s.io/events":
		return verb == "create" || verb == "patch" || verb == "update"
	case "coordination.k8s.io/leases":
		return a.GetNamespace() == corev1.NamespaceNodeLease && (name == node || verb == "create")
	case "storage.k8s.io/csinodes":
		return name == node || verb == "create"
	case "authentication.k8s.io/tokenreviews", "authorization.k8s.io/subjectaccessreviews",
		"authorization.k8s.io/localsubjectaccessreviews", "certificates.k8s.io/certificatesigningrequests":
		return verb == "create" || reads(verb) && a.GetResource() == "certificatesigningrequests"
	case "/secrets", "/configmaps", "/persistentvolumeclaims", "/serviceaccounts":
		return n.allowsReferred(node, a)
	case "/persistentvolumes", "storage.k8s.io/volumeattachments":
		return reads(verb) // narrower once there are volumes to follow
	}
	return false
}

func (n *Node) allowsPod(node string, a authorizer.Attributes) bool {
	verb := a.GetVerb()
	if a.GetSubresource() == "" && (verb == "create" || (verb == "list" || verb == "watch") && selects(a, node)) {
		return true // admission looks at what is created
	}
	writes := a.GetSubresource() == "" && (verb == "delete" || reads(verb)) ||
		a.GetSubresource() == "status" && (verb == "update" || verb == "patch" || verb == "get") ||
		a.GetSubresource() == "eviction" && verb == "create"
	if !writes {
		return false
	}
	for p := range n.Pods(a.GetNamespace()) {
		if p.Name == a.GetName() {
			return p.Spec.NodeName == node
		}
	}
	return false
}

// selects reports whether a request asks only for what is bound to the node.
func selects(a authorizer.Attributes, node string) bool {
	all, err := a.GetFieldSelector()
	return err == nil && slices.ContainsFunc(all, func(r fields.Requirement) bool {
		return r.Field == "spec.nodeName" && r.Operator == selection.Equals && r.Value == node
	})
}

func (n *Node) allowsReferred(node string, a authorizer.Attributes) bool {
	verb, sub, name := a.GetVerb(), a.GetSubresource(), a.GetName()
	switch {
	case name == "" || a.GetNamespace() == "":
		return false
	case a.GetResource() == "serviceaccounts" && sub == "token":
		if verb != "create" {
			return false
		}
	case a.GetResource() == "persistentvolumeclaims" && sub == "status":
		if verb != "get" && verb != "update" && verb != "patch" {
			return false
		}
	case sub != "" || !reads(verb):
		return false
	}
	for p := range n.Pods(a.GetNamespace()) {
		if p.Spec.NodeName == node && refers(p, a.GetResource(), name) {
			return true
		}
	}
	return false
}

// refers reports whether a pod needs the named object of its namespace.
func refers(p *corev1.Pod, resource, name string) bool {
	switch resource {
	case "serviceaccounts":
		return p.Spec.ServiceAccountName == name
	case "persistentvolumeclaims":
		return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
			return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == name ||
				v.Ephemeral != nil && p.Name+"-"+v.Name == name
		})
	case "secrets":
		return slices.Contains(secretsOf(p), name)
	case "configmaps":
		return slices.Contains(configMapsOf(p), name)
	}
	return false
}

func containersOf(p *corev1.Pod) []corev1.Container {
	all := append(slices.Clone(p.Spec.InitContainers), p.Spec.Containers...)
	for _, e := range p.Spec.EphemeralContainers {
		all = append(all, corev1.Container(e.EphemeralContainerCommon))
	}
	return all
}

func secretsOf(p *corev1.Pod) (names []string) {
	for _, s := range p.Spec.ImagePullSecrets {
		names = append(names, s.Name)
	}
	for _, c := range containersOf(p) {
		for _, e := range c.EnvFrom {
			if e.SecretRef != nil {
				names = append(names, e.SecretRef.Name)
			}
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				names = append(names, e.ValueFrom.SecretKeyRef.Name)
			}
		}
	}
	for _, v := range p.Spec.Volumes {
		if v.Secret != nil {
			names = append(names, v.Secret.SecretName)
		}
		if v.CSI != nil && v.CSI.NodePublishSecretRef != nil {
			names = append(names, v.CSI.NodePublishSecretRef.Name)
		}
		if v.Projected == nil {
			continue
		}
		for _, src := range v.Projected.Sources {
			if src.Secret != nil {
				names = append(names, src.Secret.Name)
			}
		}
	}
	return names
}

func configMapsOf(p *corev1.Pod) (names []string) {
	for _, c := range containersOf(p) {
		for _, e := range c.EnvFrom {
			if e.ConfigMapRef != nil {
				names = append(names, e.ConfigMapRef.Name)
			}
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil {
				names = append(names, e.ValueFrom.ConfigMapKeyRef.Name)
			}
		}
	}
	for _, v := range p.Spec.Volumes {
		if v.ConfigMap != nil {
			names = append(names, v.ConfigMap.Name)
		}
		if v.Projected == nil {
			continue
		}
		for _, src := range v.Projected.Sources {
			if src.ConfigMap != nil {
				names = append(names, src.ConfigMap.Name)
			}
		}
	}
	return names
}
