package bootstrap_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"skein.dev/skein/apiserver/bootstrap"
)

// table reads what upstream says in its own tests of its policy.
func table[T any](t *testing.T, dir, file string) (all []T) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, file))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("upstream's source is not in the module cache: `make conformance` brings it")
	}
	if err != nil {
		t.Fatal(err)
	}
	var l metav1.List
	if err := yaml.Unmarshal(raw, &l); err != nil {
		t.Fatal(err)
	}
	var add func(items []runtime.RawExtension)
	add = func(items []runtime.RawExtension) {
		for _, item := range items {
			var inner metav1.List
			if yaml.Unmarshal(item.Raw, &inner) == nil && inner.Kind == "List" {
				add(inner.Items)
				continue
			}
			var one T
			if err := yaml.Unmarshal(item.Raw, &one); err != nil {
				t.Fatal(err)
			}
			all = append(all, one)
		}
	}
	add(l.Items)
	return all
}

// policyDir is where upstream keeps its table, at the version that the
// conformance suite is built of.
func policyDir(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes")
	cmd.Dir = "../../tests/conformance"
	out, err := cmd.Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		t.Skip("upstream's source is not in the module cache: `make conformance` brings it")
	}
	return filepath.Join(dir, "plugin/pkg/auth/authorizer/rbac/bootstrappolicy/testdata")
}

// same compares two sets of objects by name. The version of our API may be
// one patch above that of the table.
func same[T any](t *testing.T, what string, got, want []T, name func(*T) string, clean func(*T)) {
	t.Helper()
	byName := func(all []T) map[string]T {
		out := map[string]T{}
		for i := range all {
			clean(&all[i])
			out[name(&all[i])] = all[i]
		}
		return out
	}
	if diff := cmp.Diff(byName(want), byName(got)); diff != "" {
		t.Errorf("%s differ from upstream's (-want +got):\n%s", what, diff)
	}
}

func values[T any](all []*T) (out []T) {
	for _, v := range all {
		out = append(out, *v)
	}
	return out
}

func TestTheFirstRolesAreUpstreams(t *testing.T) {
	dir := policyDir(t)
	got, err := bootstrap.Upstream()
	if err != nil {
		t.Fatal(err)
	}
	rules := func(all []rbacv1.PolicyRule) []rbacv1.PolicyRule {
		if len(all) == 0 {
			return nil
		}
		return all
	}
	same(t, "cluster roles", values(got.ClusterRoles),
		append(table[rbacv1.ClusterRole](t, dir, "cluster-roles.yaml"), table[rbacv1.ClusterRole](t, dir, "controller-roles.yaml")...),
		func(r *rbacv1.ClusterRole) string { return r.Name },
		func(r *rbacv1.ClusterRole) { r.TypeMeta, r.Rules = metav1.TypeMeta{}, rules(r.Rules) })
	same(t, "cluster role bindings", values(got.ClusterRoleBindings),
		append(table[rbacv1.ClusterRoleBinding](t, dir, "cluster-role-bindings.yaml"), table[rbacv1.ClusterRoleBinding](t, dir, "controller-role-bindings.yaml")...),
		func(r *rbacv1.ClusterRoleBinding) string { return r.Name },
		func(r *rbacv1.ClusterRoleBinding) { r.TypeMeta = metav1.TypeMeta{} })
	same(t, "roles", values(got.Roles), table[rbacv1.Role](t, dir, "namespace-roles.yaml"),
		func(r *rbacv1.Role) string { return r.Namespace + "/" + r.Name },
		func(r *rbacv1.Role) { r.TypeMeta, r.Rules = metav1.TypeMeta{}, rules(r.Rules) })
	same(t, "role bindings", values(got.RoleBindings), table[rbacv1.RoleBinding](t, dir, "namespace-role-bindings.yaml"),
		func(r *rbacv1.RoleBinding) string { return r.Namespace + "/" + r.Name },
		func(r *rbacv1.RoleBinding) { r.TypeMeta = metav1.TypeMeta{} })
}

func TestOwnRolesHaveNoNameOfUpstreams(t *testing.T) {
	theirs, err := bootstrap.Upstream()
	if err != nil {
		t.Fatal(err)
	}
	all, err := bootstrap.First()
	if err != nil {
		t.Fatal(err)
	}
	n := len(all.ClusterRoles) - len(theirs.ClusterRoles)
	if n == 0 {
		t.Fatal("there are no roles of the mesh's own parts")
	}
	for _, mine := range all.ClusterRoles[:n] {
		if slices.ContainsFunc(theirs.ClusterRoles, func(r *rbacv1.ClusterRole) bool { return r.Name == mine.Name }) {
			t.Errorf("%s is both: one would change the other at each start", mine.Name)
		}
	}
}
