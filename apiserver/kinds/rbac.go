package kinds

import (
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// created is the column of kinds that upstream shows without columns of their own.
func created() []metav1.TableColumnDefinition {
	c := str("Created At", describe(metav1.ObjectMeta{}, "creationTimestamp"))
	c.Type = "date"
	return []metav1.TableColumnDefinition{c}
}

func createdAt(t metav1.Time) []any { return []any{t.UTC().Format(time.RFC3339)} }

// Role declares roles.
func Role() registry.Kind {
	return registry.Kind{
		Resource: rbacv1.SchemeGroupVersion.WithResource("roles"), Kind: "Role", Singular: "role", Namespaced: true,
		New: func() runtime.Object { return &rbacv1.Role{} }, NewList: func() runtime.Object { return &rbacv1.RoleList{} },
		Columns: created(), Row: row(func(r *rbacv1.Role) []any { return createdAt(r.CreationTimestamp) }),
		Strategy: rules[*rbacv1.Role]{validate: validation.Role, validateUpdate: validation.RoleUpdate, putCreates: true}.strategy(),
	}
}

// ClusterRole declares cluster roles.
func ClusterRole() registry.Kind {
	return registry.Kind{
		Resource: rbacv1.SchemeGroupVersion.WithResource("clusterroles"), Kind: "ClusterRole", Singular: "clusterrole",
		New: func() runtime.Object { return &rbacv1.ClusterRole{} }, NewList: func() runtime.Object { return &rbacv1.ClusterRoleList{} },
		Columns: created(), Row: row(func(r *rbacv1.ClusterRole) []any { return createdAt(r.CreationTimestamp) }),
		Strategy: rules[*rbacv1.ClusterRole]{
			validate: validation.ClusterRole, validateUpdate: validation.ClusterRoleUpdate, putCreates: true,
		}.strategy(),
	}
}

func bindingColumns(d doc, kind string) []metav1.TableColumnDefinition {
	role := strings.TrimSuffix(describe(d, "roleRef"), " This field is immutable.") // the words of v1beta1
	return columns([]metav1.TableColumnDefinition{str("Role", role), ageColumn()},
		wide(str("Users", "Users in the "+kind), str("Groups", "Groups in the "+kind), str("ServiceAccounts", "ServiceAccounts in the "+kind))...)
}

func bindingRow(role rbacv1.RoleRef, created metav1.Time, subjects []rbacv1.Subject) []any {
	var users, groups, accounts []string
	for _, s := range subjects {
		switch s.Kind {
		case rbacv1.UserKind:
			users = append(users, s.Name)
		case rbacv1.GroupKind:
			groups = append(groups, s.Name)
		case rbacv1.ServiceAccountKind:
			accounts = append(accounts, s.Namespace+"/"+s.Name)
		}
	}
	return []any{
		role.Kind + "/" + role.Name, age(created),
		strings.Join(users, ", "), strings.Join(groups, ", "), strings.Join(accounts, ", "),
	}
}

// RoleBinding declares role bindings.
func RoleBinding() registry.Kind {
	return registry.Kind{
		Resource: rbacv1.SchemeGroupVersion.WithResource("rolebindings"), Kind: "RoleBinding", Singular: "rolebinding", Namespaced: true,
		New: func() runtime.Object { return &rbacv1.RoleBinding{} }, NewList: func() runtime.Object { return &rbacv1.RoleBindingList{} },
		Columns: bindingColumns(rbacv1.RoleBinding{}, "roleBinding"), Default: defaults(defaulting.RoleBinding),
		Row: row(func(b *rbacv1.RoleBinding) []any { return bindingRow(b.RoleRef, b.CreationTimestamp, b.Subjects) }),
		Strategy: rules[*rbacv1.RoleBinding]{
			validate: validation.RoleBinding, validateUpdate: validation.RoleBindingUpdate, putCreates: true,
		}.strategy(),
	}
}

// ClusterRoleBinding declares cluster role bindings.
func ClusterRoleBinding() registry.Kind {
	return registry.Kind{
		Resource: rbacv1.SchemeGroupVersion.WithResource("clusterrolebindings"), Kind: "ClusterRoleBinding", Singular: "clusterrolebinding",
		New:     func() runtime.Object { return &rbacv1.ClusterRoleBinding{} },
		NewList: func() runtime.Object { return &rbacv1.ClusterRoleBindingList{} },
		Columns: bindingColumns(rbacv1.ClusterRoleBinding{}, "clusterRoleBinding"), Default: defaults(defaulting.ClusterRoleBinding),
		Row: row(func(b *rbacv1.ClusterRoleBinding) []any {
			return bindingRow(b.RoleRef, b.CreationTimestamp, b.Subjects)
		}),
		Strategy: rules[*rbacv1.ClusterRoleBinding]{
			validate: validation.ClusterRoleBinding, validateUpdate: validation.ClusterRoleBindingUpdate, putCreates: true,
		}.strategy(),
	}
}
