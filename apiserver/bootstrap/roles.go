// Package bootstrap is what a cluster has before anybody creates anything:
// its first namespaces, roles and bindings.
//
// Its invariant: it is data. What users change in it is theirs: it is created
// when missing and never overwritten.
package bootstrap

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
)

// Namespaces returns the first namespaces.
func Namespaces() []*corev1.Namespace {
	var out []*corev1.Namespace
	for _, name := range []string{metav1.NamespaceSystem, metav1.NamespaceDefault, metav1.NamespacePublic, corev1.NamespaceNodeLease} {
		out = append(out, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	return out
}

const (
	labelBootstrapping = "kubernetes.io/bootstrapping"
	annotationUpdate   = "rbac.authorization.kubernetes.io/autoupdate"
	aggregateTo        = "rbac.authorization.k8s.io/aggregate-to-"
)

func meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: name, Labels: map[string]string{labelBootstrapping: "rbac-defaults"},
		Annotations: map[string]string{annotationUpdate: "true"},
	}
}

func role(name string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: meta(name), Rules: rules}
}

// part is a role that is added to the role to by its label.
func part(name, to string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	r := role(name, rules...)
	r.Labels[aggregateTo+to] = "true"
	return r
}

func sum(name string, more map[string]string) *rbacv1.ClusterRole {
	r := role(name)
	maps.Copy(r.Labels, more)
	r.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{
		{MatchLabels: map[string]string{aggregateTo + name: "true"}},
	}}
	return r
}

// on is a rule: verbs on resources of one group.
func on(group string, resources []string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: verbs}
}

func paths(urls ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{NonResourceURLs: urls, Verbs: []string{"get"}}
}

func list(names ...string) []string { return names }

func read() []string      { return []string{"get", "list", "watch"} }
func write() []string     { return []string{"create", "delete", "deletecollection", "patch", "update"} }
func readWrite() []string { return append(read(), write()...) }

const all = "*"

// ClusterRoles returns the first cluster roles.
func ClusterRoles() []*rbacv1.ClusterRole {
	roles := []*rbacv1.ClusterRole{
		role("cluster-admin", on(all, list(all), all), rbacv1.PolicyRule{NonResourceURLs: list(all), Verbs: list(all)}),
		role("system:discovery", paths("/livez", "/readyz", "/healthz", "/version", "/version/", "/openapi", "/openapi/*", "/api", "/api/*", "/apis", "/apis/*")),
		role("system:public-info-viewer", paths("/livez", "/readyz", "/healthz", "/version", "/version/")),
		role("system:monitoring", paths("/metrics", "/metrics/*", "/livez", "/livez/*", "/readyz", "/readyz/*", "/healthz", "/healthz/*")),
		role("system:basic-user",
			on("authorization.k8s.io", list("selfsubjectaccessreviews", "selfsubjectrulesreviews"), "create"),
			on("authentication.k8s.io", list("selfsubjectreviews"), "create")),
		role("system:auth-delegator",
			on("authentication.k8s.io", list("tokenreviews"), "create"),
			on("authorization.k8s.io", list("subjectaccessreviews"), "create")),
		role("system:service-account-issuer-discovery", paths("/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks", "/openid/v1/jwks/")),
		role("system:kubelet-api-admin", on("", list("nodes"), append(read(), "proxy")...),
			on("", list("nodes/proxy", "nodes/log", "nodes/stats", "nodes/metrics", "nodes/spec", "nodes/pods", "nodes/healthz", "nodes/configz"), all)),
		role("system:node", nodeRules()...),
		role("system:node-proxier",
			on("", list("services", "endpoints", "nodes"), read()...),
			on("discovery.k8s.io", list("endpointslices"), read()...),
			on("networking.k8s.io", list("servicecidrs"), read()...),
			events()[0], events()[1]),
		role("system:kube-scheduler", schedulerRules()...),
		role("system:kube-controller-manager", controllerRules()...),
		role("system:skein-dns", on("", list("services", "pods"), read()...),
			on("discovery.k8s.io", list("endpointslices"), read()...), events()[1]),
		role("system:kube-dns", on("", list("services", "endpoints", "namespaces", "pods", "nodes"), read()...),
			on("discovery.k8s.io", list("endpointslices"), read()...)),
	}
	return append(roles, userRoles()...)
}

func events() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		on("", list("events"), "create", "patch", "update"),
		on("events.k8s.io", list("events"), "create", "patch", "update"),
	}
}

// nodeRules are what out-of-tree tools expect to find; nodes themselves are
// authorized by what they run.
func nodeRules() []rbacv1.PolicyRule {
	return append([]rbacv1.PolicyRule{
		on("", list("services", "endpoints"), read()...),
		on("", list("nodes"), "create", "get", "list", "watch", "update", "patch"),
		on("", list("nodes/status"), "patch", "update"),
		on("", list("pods"), "get", "list", "watch", "create", "delete"),
		on("", list("pods/status"), "patch", "update"),
		on("", list("pods/eviction", "serviceaccounts/token"), "create"),
		on("", list("configmaps", "secrets", "persistentvolumeclaims", "persistentvolumes"), read()...),
		on("coordination.k8s.io", list("leases"), "create", "delete", "get", "patch", "update"),
	}, events()...)
}

func schedulerRules() []rbacv1.PolicyRule {
	return append([]rbacv1.PolicyRule{
		on("coordination.k8s.io", list("leases"), "create", "get", "list", "update", "watch"),
		on("", list("nodes", "namespaces", "services", "replicationcontrollers", "persistentvolumes"), read()...),
		on("", list("pods"), "delete", "get", "list", "watch", "patch"),
		on("", list("pods/binding", "bindings"), "create"),
		on("", list("pods/status"), "patch", "update"),
		on("apps", list("replicasets", "statefulsets"), read()...),
		on("policy", list("poddisruptionbudgets"), read()...),
		on("", list("persistentvolumeclaims", "persistentvolumes"), append(read(), "update", "patch")...),
		on("storage.k8s.io", list("csinodes", "csidrivers", "csistoragecapacities", "storageclasses", "volumeattachments"), read()...),
		on("scheduling.k8s.io", list("priorityclasses"), read()...),
		on("authentication.k8s.io", list("tokenreviews"), "create"),
		on("authorization.k8s.io", list("subjectaccessreviews"), "create"),
	}, events()...)
}

// controllerRules are those of all controllers together: they run as one user.
func controllerRules() []rbacv1.PolicyRule {
	return append([]rbacv1.PolicyRule{
		on(all, list(all), append(read(), "delete", "deletecollection", "patch", "update")...),
		on("", list("pods", "endpoints", "serviceaccounts", "serviceaccounts/token", "secrets", "configmaps", "nodes", "persistentvolumes", "persistentvolumeclaims", "pods/eviction", "podtemplates", "namespaces"), "create"),
		on("apps", list("replicasets", "controllerrevisions", "deployments"), "create"),
		on("batch", list("jobs"), "create"),
		on("discovery.k8s.io", list("endpointslices"), "create"),
		on("coordination.k8s.io", list("leases"), "create"),
		on("rbac.authorization.k8s.io", list("clusterroles"), "escalate"),
		on("certificates.k8s.io", list("signers"), "approve", "sign"),
		on("storage.k8s.io", list("volumeattachments"), "create"),
		on("authentication.k8s.io", list("tokenreviews"), "create"),
		on("authorization.k8s.io", list("subjectaccessreviews"), "create"),
		paths(all),
	}, events()...)
}

// userRoles are admin, edit and view, each the sum of its parts.
func userRoles() []*rbacv1.ClusterRole {
	workloads := list("deployments", "deployments/scale", "replicasets", "replicasets/scale", "statefulsets", "statefulsets/scale", "daemonsets", "controllerrevisions")
	core := list("configmaps", "endpoints", "persistentvolumeclaims", "pods", "replicationcontrollers", "replicationcontrollers/scale", "serviceaccounts", "services")
	other := func(verbs ...string) []rbacv1.PolicyRule {
		return []rbacv1.PolicyRule{
			on("apps", workloads, verbs...),
			on("autoscaling", list("horizontalpodautoscalers"), verbs...),
			on("batch", list("cronjobs", "jobs"), verbs...),
			on("policy", list("poddisruptionbudgets"), verbs...),
			on("networking.k8s.io", list("ingresses", "networkpolicies"), verbs...),
		}
	}
	edit := append([]rbacv1.PolicyRule{
		on("", list("pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"), read()...),
		on("", list("serviceaccounts"), "impersonate"),
		on("", append(core, "pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"), write()...),
		on("", list("pods/eviction", "serviceaccounts/token"), "create"),
		on("", list("events"), write()...),
		on("coordination.k8s.io", list("leases"), readWrite()...),
	}, other(write()...)...)
	view := append([]rbacv1.PolicyRule{
		on("", append(core, "persistentvolumeclaims/status", "pods/status", "pods/log", "services/status", "replicationcontrollers/status",
			"bindings", "events", "limitranges", "namespaces", "namespaces/status", "resourcequotas", "resourcequotas/status"), read()...),
		on("discovery.k8s.io", list("endpointslices"), read()...),
		on("apps", list("deployments/status", "replicasets/status", "statefulsets/status", "daemonsets/status"), read()...),
		on("batch", list("jobs/status", "cronjobs/status"), read()...),
	}, other(read()...)...)
	return []*rbacv1.ClusterRole{
		sum("admin", nil),
		sum("edit", map[string]string{aggregateTo + "admin": "true"}),
		sum("view", map[string]string{aggregateTo + "edit": "true"}),
		part("system:aggregate-to-admin", "admin",
			on("authorization.k8s.io", list("localsubjectaccessreviews"), "create"),
			on("rbac.authorization.k8s.io", list("roles", "rolebindings"), readWrite()...)),
		part("system:aggregate-to-edit", "edit", edit...),
		part("system:aggregate-to-view", "view", view...),
	}
}

// AuthConfig names the ConfigMap of kube-system that tells other API servers how
// to authenticate requests.
const AuthConfig = "extension-apiserver-authentication"

// Roles returns the first roles of namespaces.
func Roles() []*rbacv1.Role {
	m := meta(AuthConfig + "-reader")
	m.Namespace = metav1.NamespaceSystem
	rule := on("", list("configmaps"), read()...)
	rule.ResourceNames = list(AuthConfig)
	return []*rbacv1.Role{{ObjectMeta: m, Rules: []rbacv1.PolicyRule{rule}}}
}

// ClusterRoleBindings returns the first cluster role bindings.
func ClusterRoleBindings() []*rbacv1.ClusterRoleBinding {
	return []*rbacv1.ClusterRoleBinding{
		bind("cluster-admin", group(user.SystemPrivilegedGroup)),
		bind("system:discovery", group(user.AllAuthenticated)),
		bind("system:basic-user", group(user.AllAuthenticated)),
		bind("system:public-info-viewer", group(user.AllAuthenticated), group(user.AllUnauthenticated)),
		bind("system:monitoring", group(user.MonitoringGroup)),
		bind("system:service-account-issuer-discovery", group("system:serviceaccounts")),
		bind("system:node-proxier", person(user.KubeProxy)),
		bind("system:kube-scheduler", person(user.KubeScheduler)),
		bind("system:kube-controller-manager", person(user.KubeControllerManager)),
		bind("system:kube-dns", person("system:kube-dns")),
		bind("system:skein-dns", person("system:skein-dns")),
		bind("system:node"), // as upstream: nodes are not bound to it
	}
}

func bind(name string, subjects ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta(name), Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
	}
}

func group(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: name}
}

func person(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}
}
