package outofprocess_test

import (
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// may asks the API what the client's user may do.
func may(t *testing.T, c kubernetes.Interface, a authorizationv1.ResourceAttributes) bool {
	t.Helper()
	r, err := c.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &a},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r.Status.Allowed
}

// granted lists what a user was given by roles, "verb group/resource", but
// for what everybody has.
func granted(t *testing.T, c kubernetes.Interface) map[string]bool {
	t.Helper()
	r, err := c.AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(), &authorizationv1.SelfSubjectRulesReview{
		Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "default"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, rule := range r.Status.ResourceRules {
		for _, g := range rule.APIGroups {
			if g == "authorization.k8s.io" || g == "authentication.k8s.io" {
				continue
			}
			for _, res := range rule.Resources {
				for _, v := range rule.Verbs {
					out[v+" "+g+"/"+res] = true
				}
			}
		}
	}
	return out
}

// only fails for each right beyond the wanted ones, and for each that is
// wanted and missing.
func only(t *testing.T, c kubernetes.Interface, want ...string) {
	t.Helper()
	have := granted(t, c)
	for _, w := range want {
		if !have[w] {
			t.Errorf("the right to %q is missing", w)
		}
		delete(have, w)
	}
	for more := range have {
		t.Errorf("the right to %q is more than is needed", more)
	}
}

// recorder's rights, which every component has.
func recording() []string {
	return []string{"create events.k8s.io/events", "patch events.k8s.io/events", "update events.k8s.io/events"}
}

func reading(resources ...string) []string {
	var out []string
	for _, r := range resources {
		for _, v := range []string{"get", "list", "watch"} {
			out = append(out, v+" "+r)
		}
	}
	return out
}
