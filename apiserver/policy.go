package apiserver

import (
	"context"

	"golang.org/x/sync/errgroup"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	rbacclient "k8s.io/client-go/kubernetes/typed/rbac/v1"
	"k8s.io/component-helpers/auth/rbac/reconciliation"

	"skein.dev/skein/apiserver/bootstrap"
)

const (
	clusterRoles        = rbacv1.GroupName + "/clusterroles"
	clusterRoleBindings = rbacv1.GroupName + "/clusterrolebindings"
	roles               = rbacv1.GroupName + "/roles"
	roleBindings        = rbacv1.GroupName + "/rolebindings"
	// policyWriters is how many of the first roles are written at a time:
	// those that wait for the log together share an entry of it.
	policyWriters = 16
)

// complete reports whether the replica has all roles that components need.
func (s *Server) complete() bool {
	a, err := bootstrap.First()
	if err != nil {
		return false
	}
	for _, r := range a.ClusterRoles {
		if !s.exists(clusterRoles, "", r.Name) {
			return false
		}
	}
	for _, b := range a.ClusterRoleBindings {
		if !s.exists(clusterRoleBindings, "", b.Name) {
			return false
		}
	}
	return true
}

// reconcilePolicy creates the first roles and bindings and adds what is
// missing in them, as upstream does: a version that came with new rights gives
// them to an old cluster too. What stands in the replica is read there, so
// that an old cluster's start writes nothing. Roles come before what binds
// them; those with an annotation against it are left alone.
func (s *Server) reconcilePolicy(parent context.Context, client kubernetes.Interface) error {
	if s.resources[clusterRoles] == nil || s.resources[clusterRoleBindings] == nil || s.resources[roles] == nil || s.resources[roleBindings] == nil {
		return nil
	}
	a, err := bootstrap.First()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(parent)
	g.SetLimit(policyWriters)
	w := policyWriter{ctx: ctx, server: s, client: client.RbacV1()}
	role := func(r reconciliation.RuleOwner) {
		g.Go(func() error {
			_, err := (&reconciliation.ReconcileRoleOptions{Role: r, Confirm: true, Client: roleWriter{w}}).Run()
			return err
		})
	}
	for _, r := range a.ClusterRoles {
		role(reconciliation.ClusterRoleRuleOwner{ClusterRole: r})
	}
	for _, r := range a.Roles {
		role(reconciliation.RoleRuleOwner{Role: r})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	g, w.ctx = errgroup.WithContext(parent)
	g.SetLimit(policyWriters)
	binding := func(b reconciliation.RoleBinding) {
		g.Go(func() error {
			_, err := (&reconciliation.ReconcileRoleBindingOptions{RoleBinding: b, Confirm: true, Client: bindingWriter{w}}).Run()
			return err
		})
	}
	for _, b := range a.ClusterRoleBindings {
		binding(reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: b})
	}
	for _, b := range a.RoleBindings {
		binding(reconciliation.RoleBindingAdapter{RoleBinding: b})
	}
	return g.Wait()
}

// policyWriter reads roles in the replica and writes them as anybody does. The
// library's own form of it can be neither stopped nor kept from the network.
type policyWriter struct {
	ctx    context.Context //nolint:containedctx // the library's interfaces have none
	server *Server
	client rbacclient.RbacV1Interface
}

func (w policyWriter) missing(resource, name string) error {
	return apierrors.NewNotFound(schema.ParseGroupResource(resource+"."+rbacv1.GroupName), name)
}

type roleWriter struct{ policyWriter }

var _ reconciliation.RuleOwnerModifier = roleWriter{}

// Get implements reconciliation.RuleOwnerModifier.
func (w roleWriter) Get(namespace, name string) (reconciliation.RuleOwner, error) {
	if namespace == "" {
		if r := find[*rbacv1.ClusterRole](w.server, clusterRoles, "", name); r != nil {
			return reconciliation.ClusterRoleRuleOwner{ClusterRole: r}, nil
		}
		return nil, w.missing("clusterroles", name)
	}
	if r := find[*rbacv1.Role](w.server, roles, namespace, name); r != nil {
		return reconciliation.RoleRuleOwner{Role: r}, nil
	}
	return nil, w.missing("roles", name)
}

// Create implements reconciliation.RuleOwnerModifier.
func (w roleWriter) Create(in reconciliation.RuleOwner) (out reconciliation.RuleOwner, err error) {
	switch r := in.GetObject().(type) {
	case *rbacv1.ClusterRole:
		_, err = w.client.ClusterRoles().Create(w.ctx, r, metav1.CreateOptions{})
	case *rbacv1.Role:
		_, err = w.client.Roles(r.Namespace).Create(w.ctx, r, metav1.CreateOptions{})
	}
	return in, existing(err)
}

// Update implements reconciliation.RuleOwnerModifier.
func (w roleWriter) Update(in reconciliation.RuleOwner) (out reconciliation.RuleOwner, err error) {
	switch r := in.GetObject().(type) {
	case *rbacv1.ClusterRole:
		_, err = w.client.ClusterRoles().Update(w.ctx, r, metav1.UpdateOptions{})
	case *rbacv1.Role:
		_, err = w.client.Roles(r.Namespace).Update(w.ctx, r, metav1.UpdateOptions{})
	}
	return in, err
}

type bindingWriter struct{ policyWriter }

var _ reconciliation.RoleBindingModifier = bindingWriter{}

// Get implements reconciliation.RoleBindingModifier.
func (w bindingWriter) Get(namespace, name string) (reconciliation.RoleBinding, error) {
	if namespace == "" {
		if b := find[*rbacv1.ClusterRoleBinding](w.server, clusterRoleBindings, "", name); b != nil {
			return reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: b}, nil
		}
		return nil, w.missing("clusterrolebindings", name)
	}
	if b := find[*rbacv1.RoleBinding](w.server, roleBindings, namespace, name); b != nil {
		return reconciliation.RoleBindingAdapter{RoleBinding: b}, nil
	}
	return nil, w.missing("rolebindings", name)
}

// Create implements reconciliation.RoleBindingModifier.
func (w bindingWriter) Create(in reconciliation.RoleBinding) (out reconciliation.RoleBinding, err error) {
	switch b := in.GetObject().(type) {
	case *rbacv1.ClusterRoleBinding:
		_, err = w.client.ClusterRoleBindings().Create(w.ctx, b, metav1.CreateOptions{})
	case *rbacv1.RoleBinding:
		_, err = w.client.RoleBindings(b.Namespace).Create(w.ctx, b, metav1.CreateOptions{})
	}
	return in, existing(err)
}

// Update implements reconciliation.RoleBindingModifier.
func (w bindingWriter) Update(in reconciliation.RoleBinding) (out reconciliation.RoleBinding, err error) {
	switch b := in.GetObject().(type) {
	case *rbacv1.ClusterRoleBinding:
		_, err = w.client.ClusterRoleBindings().Update(w.ctx, b, metav1.UpdateOptions{})
	case *rbacv1.RoleBinding:
		_, err = w.client.RoleBindings(b.Namespace).Update(w.ctx, b, metav1.UpdateOptions{})
	}
	return in, err
}

// Delete implements reconciliation.RoleBindingModifier.
func (w bindingWriter) Delete(namespace, name string, uid types.UID) error {
	options := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}
	if namespace == "" {
		return w.client.ClusterRoleBindings().Delete(w.ctx, name, options)
	}
	return w.client.RoleBindings(namespace).Delete(w.ctx, name, options)
}
