package apiserver_test

import (
	"slices"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/api/store"
	"skein.dev/skein/apiserver"
)

func TestMissingRightsComeBackAtStartUnlessTheRoleSaysNo(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t)).RbacV1()
	edit := func(name string, change func(*rbacv1.ClusterRole)) {
		t.Helper()
		r, err := c.ClusterRoles().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		change(r)
		if _, err := c.ClusterRoles().Update(t.Context(), r, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	mine := rbacv1.PolicyRule{APIGroups: []string{"example.com"}, Resources: []string{"things"}, Verbs: []string{"get"}}
	edit("system:discovery", func(r *rbacv1.ClusterRole) { r.Rules = []rbacv1.PolicyRule{mine} })
	edit("system:monitoring", func(r *rbacv1.ClusterRole) {
		r.Rules, r.Annotations[rbacv1.AutoUpdateAnnotationKey] = []rbacv1.PolicyRule{mine}, "false"
	})
	if err := c.ClusterRoles().Delete(t.Context(), "view", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	b, err := c.ClusterRoleBindings().Get(t.Context(), "system:discovery", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b.Subjects = []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "guests"}}
	if _, err := c.ClusterRoleBindings().Update(t.Context(), b, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}

	again := start(t, func(cfg *apiserver.Config) { cfg.Store, cfg.ServiceAccountKey = f.store, f.key })
	c = again.client(t, again.admin(t)).RbacV1()
	rules := func(name string) []rbacv1.PolicyRule {
		t.Helper()
		r, err := c.ClusterRoles().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return r.Rules
	}
	if got := rules("system:discovery"); len(got) < 2 || got[0].Resources[0] != "things" {
		t.Errorf("a role that lacked rights: got %v, want what was added and what was missing", got)
	}
	if got := rules("system:monitoring"); len(got) != 1 {
		t.Errorf("a role that says no: got %v, want it left alone", got)
	}
	rules("view")
	b, err = c.ClusterRoleBindings().Get(t.Context(), "system:discovery", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if names := subjects(b); !slices.Equal(names, []string{"guests", "system:authenticated"}) {
		t.Errorf("subjects: got %v, want the added one and the missing one", names)
	}
}

func subjects(b *rbacv1.ClusterRoleBinding) (names []string) {
	for _, s := range b.Subjects {
		names = append(names, s.Name)
	}
	return names
}

func TestASecondStartWritesNoPolicy(t *testing.T) {
	f := start(t)
	// Others of the server's own objects may come later than its readiness.
	newest := func() (n store.Revision) {
		for e := range f.store.Local().Ascend("/registry/"+rbacv1.GroupName+"/", "") {
			n = max(n, e.Mod)
		}
		return n
	}
	before := newest()
	start(t, func(cfg *apiserver.Config) { cfg.Store, cfg.ServiceAccountKey = f.store, f.key })
	if after := newest(); after != before || before == 0 {
		t.Errorf("the newest role or binding is of revision %d after another server's start, want %d", after, before)
	}
}
