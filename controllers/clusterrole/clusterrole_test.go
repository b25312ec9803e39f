package clusterrole_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/controllers/clusterrole"
)

func TestRulesAreThoseOfTheChosenRolesOnce(t *testing.T) {
	rule := func(r string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{Resources: []string{r}, Verbs: []string{"get"}}
	}
	role := func(name string, label bool, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
		r := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
		if label {
			r.Labels = map[string]string{"to": "view"}
		}
		return r
	}
	view := role("view", true, rule("stale"))
	view.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"to": "view"}}}}
	got := clusterrole.Rules(view, []*rbacv1.ClusterRole{role("b", true, rule("pods"), rule("jobs")), view, role("a", true, rule("jobs")), role("c", false, rule("secrets"))})
	if d := cmp.Diff([]rbacv1.PolicyRule{rule("jobs"), rule("pods")}, got); d != "" {
		t.Error(d)
	}
}
