package controllers

import (
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"

	"skein.dev/skein/api/component"
	"skein.dev/skein/api/member/membertest"
	"skein.dev/skein/apiserver/bootstrap"
	"skein.dev/skein/controllers/csr"
)

// rules are those of a controller's user at first.
func rules(t *testing.T, m maker) (all []rbacv1.PolicyRule) {
	t.Helper()
	first, err := bootstrap.First()
	if err != nil {
		t.Fatal(err)
	}
	roles := map[string][]rbacv1.PolicyRule{}
	for _, r := range first.ClusterRoles {
		roles[r.Name] = r.Rules
	}
	for _, b := range first.ClusterRoleBindings {
		if slices.ContainsFunc(b.Subjects, func(s rbacv1.Subject) bool {
			return s.Kind == rbacv1.UserKind && s.Name == m.user() || s.Kind == rbacv1.ServiceAccountKind && s.Namespace == "kube-system" && s.Name == m.account
		}) {
			all = append(all, roles[b.RoleRef.Name]...)
		}
	}
	return all
}

// writes reports whether a rule allows to change a resource at all.
func writes(r rbacv1.PolicyRule, gr schema.GroupResource) bool {
	_, sub, _ := strings.Cut(gr.Resource, "/")
	return slices.ContainsFunc(r.Verbs, func(v string) bool { return v != "get" && v != "list" && v != "watch" }) &&
		(slices.Contains(r.APIGroups, gr.Group) || slices.Contains(r.APIGroups, "*")) &&
		(slices.Contains(r.Resources, gr.Resource) || slices.Contains(r.Resources, "*") || sub != "" && slices.Contains(r.Resources, "*/"+sub))
}

func TestEachControllerIsAUserThatMayWriteWhatItDeclares(t *testing.T) {
	cfg := Config{
		Members: membertest.New(), RootCA: []byte("root"), ClientCA: &csr.Authority{}, ServingCA: &csr.Authority{},
		Serves: func(schema.GroupResource) bool { return true },
	}
	client := fake.NewClientset()
	access := Access{Kit: component.Kit{Client: client, Informers: informers.NewSharedInformerFactory(client, 0), Recorder: &events.FakeRecorder{}}}
	for _, m := range cfg.makers() {
		t.Run(m.name, func(t *testing.T) {
			have := rules(t, m)
			if len(have) == 0 {
				t.Fatalf("%s has no rights at first", m.user())
			}
			want := []string{"events.events.k8s.io"} // of objects that are given up
			if !m.wide {
				c, err := m.make(access)
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, c.Writes...)
			}
			for _, w := range want {
				name, sub, _ := strings.Cut(w, "/")
				gr := schema.ParseGroupResource(name)
				if sub != "" {
					gr.Resource += "/" + sub
				}
				if !slices.ContainsFunc(have, func(r rbacv1.PolicyRule) bool { return writes(r, gr) }) {
					t.Errorf("%s may not write %s", m.user(), w)
				}
			}
			for _, r := range have {
				if slices.Contains(r.Verbs, "*") || slices.Contains(r.Verbs, "impersonate") || slices.Contains(r.Verbs, "bind") {
					t.Errorf("%s may do more than a controller should: %v", m.user(), r)
				}
			}
		})
	}
}
