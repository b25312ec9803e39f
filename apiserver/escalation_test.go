package apiserver_test

import (
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// roleKeeper is a client of a user who may do everything with roles and their
// bindings, and nothing else.
func roleKeeper(t *testing.T, f *fixture, admin kubernetes.Interface) kubernetes.Interface {
	t.Helper()
	rules := []rbacv1.PolicyRule{{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"*"}, Verbs: []string{"get", "create", "update", "patch"}}}
	if _, err := admin.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "keeper"}, Rules: rules}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "keeper"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "keeper"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "keeper"}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	keeper := f.client(t, f.user(t, "keeper"))
	for range 600 {
		r, err := keeper.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "patch", Group: rbacv1.GroupName, Resource: "roles"}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if r.Status.Allowed {
			return keeper
		}
		select {
		case <-t.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	t.Fatal("the binding has no effect")
	return nil
}

func TestNobodyBindsARoleThatDoesNotExistYet(t *testing.T) {
	f := start(t)
	admin := f.client(t, f.admin(t))
	keeper := roleKeeper(t, f, admin)
	for _, kind := range []string{"Role", "ClusterRole"} {
		_, err := keeper.RbacV1().RoleBindings("default").Create(t.Context(), &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "later"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: "later"},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "keeper"}},
		}, metav1.CreateOptions{})
		if !apierrors.IsNotFound(err) {
			t.Errorf("%s: %v, want not found: whoever makes it later would give its rights away unseen", kind, err)
		}
	}
	// Who may bind whatever it is may bind what comes later, too.
	if _, err := admin.RbacV1().RoleBindings("default").Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "later"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "later"},
	}, metav1.CreateOptions{}); err != nil {
		t.Errorf("an administrator: %v", err)
	}
}

func TestOwnersAndFinalizersOfRolesAreNoRights(t *testing.T) {
	f := start(t)
	admin := f.client(t, f.admin(t))
	keeper := roleKeeper(t, f, admin)
	if _, err := admin.RbacV1().Roles("default").Create(t.Context(), &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "strong", Finalizers: []string{"example.com/keep"}},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	patch := func(body string) error {
		_, err := keeper.RbacV1().Roles("default").Patch(t.Context(), "strong", types.MergePatchType, []byte(body), metav1.PatchOptions{})
		return err
	}
	if err := patch(`{"metadata":{"labels":{"a":"b"}}}`); !apierrors.IsForbidden(err) {
		t.Errorf("a label of a role with rights that he has not: %v, want forbidden", err)
	}
	if err := patch(`{"metadata":{"finalizers":null}}`); err != nil {
		t.Errorf("its finalizers, as the garbage collector does: %v", err)
	}
}

func TestARoleThatSumsUpOthersIsChangedOnlyByWhoHasEverything(t *testing.T) {
	f := start(t)
	admin := f.client(t, f.admin(t))
	keeper := roleKeeper(t, f, admin)
	if _, err := admin.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta:      metav1.ObjectMeta{Name: "sum"},
		AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"sum": "up"}}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := keeper.RbacV1().ClusterRoles().Patch(t.Context(), "sum", types.MergePatchType, []byte(`{"aggregationRule":null}`), metav1.PatchOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("without its rule: %v, want forbidden", err)
	}
}
