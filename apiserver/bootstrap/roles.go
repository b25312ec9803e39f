// Package bootstrap is what a cluster has before anybody creates anything:
// its first namespaces, roles and bindings.
//
// Its invariant: it is data. A right that is missing is added again at each
// start, unless the role says that it is not to be touched; what users add to
// it is theirs.
package bootstrap

import (
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	aggregateTo        = "rbac.authorization.k8s.io/aggregate-to-"
)

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace, Name: name, Labels: map[string]string{labelBootstrapping: "rbac-defaults"},
		Annotations: map[string]string{rbacv1.AutoUpdateAnnotationKey: "true"},
	}
}

// AuthConfig names the ConfigMap of kube-system that tells other API servers how
// to authenticate requests.
const AuthConfig = "extension-apiserver-authentication"

// Access is who may do what at first.
type Access struct {
	ClusterRoles        []*rbacv1.ClusterRole
	ClusterRoleBindings []*rbacv1.ClusterRoleBinding
	Roles               []*rbacv1.Role
	RoleBindings        []*rbacv1.RoleBinding
}

// First returns upstream's roles and, before them, those that the parts of a
// mesh need beyond upstream's of their name.
func First() (Access, error) {
	a := own()
	theirs, err := Upstream()
	if err != nil {
		return Access{}, err
	}
	a.ClusterRoles = append(a.ClusterRoles, theirs.ClusterRoles...)
	a.ClusterRoleBindings = append(a.ClusterRoleBindings, theirs.ClusterRoleBindings...)
	a.Roles, a.RoleBindings = theirs.Roles, theirs.RoleBindings
	return a, nil
}

// on is a rule: verbs on resources of one group.
func on(group string, resources []string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: verbs}
}

func list(names ...string) []string { return names }

func read() []string { return []string{"get", "list", "watch"} }

func named(who string) []rbacv1.Subject {
	return []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: who}}
}

// accounts are service accounts of the system, which controllers act as.
func accounts(names ...string) (all []rbacv1.Subject) {
	for _, n := range names {
		all = append(all, rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: metav1.NamespaceSystem, Name: n})
	}
	return all
}

func own() (a Access) {
	role := func(name string, who []rbacv1.Subject, rules ...rbacv1.PolicyRule) {
		a.ClusterRoles = append(a.ClusterRoles, &rbacv1.ClusterRole{ObjectMeta: meta("", name), Rules: rules})
		a.ClusterRoleBindings = append(a.ClusterRoleBindings, &rbacv1.ClusterRoleBinding{
			ObjectMeta: meta("", name), Subjects: who,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		})
	}
	record := on("events.k8s.io", list("events"), "create", "patch", "update")
	// The loop of all controllers tells of objects that it gives up, also for
	// those that upstream lets say nothing.
	role("system:skein-recorder", accounts("clusterrole-aggregation-controller", "namespace-controller", "pod-garbage-collector", "podcertificaterequestcleaner"), record)
	role("system:skein-dns", named("system:skein-dns"),
		on("", list("services", "pods"), read()...),
		on("discovery.k8s.io", list("endpointslices"), read()...),
		record)
	return a
}
