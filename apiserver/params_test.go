package apiserver_test

import (
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

func policy(name, kind string) *admissionregistrationv1.ValidatingAdmissionPolicy {
	return &admissionregistrationv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			ParamKind: &admissionregistrationv1.ParamKind{APIVersion: "v1", Kind: kind},
			MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionregistrationv1.RuleWithOperations{
					Operations: []admissionregistrationv1.OperationType{"CREATE"},
					Rule:       admissionregistrationv1.Rule{APIGroups: []string{"example.com"}, APIVersions: []string{"v1"}, Resources: []string{"things"}},
				},
			}}},
			Validations: []admissionregistrationv1.Validation{{Expression: "true"}},
		},
	}
}

func TestAPolicyReadsOnlyWhatItsAuthorMayRead(t *testing.T) {
	f := start(t)
	admin := f.client(t, f.admin(t))
	allow(t, admin, "ann",
		rbacv1.PolicyRule{APIGroups: []string{admissionregistrationv1.GroupName}, Resources: []string{"*"}, Verbs: []string{"create"}},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get"}})
	ann := f.client(t, f.user(t, "ann"))
	create := func(c kubernetes.Interface, p *admissionregistrationv1.ValidatingAdmissionPolicy) error {
		_, err := c.AdmissionregistrationV1().ValidatingAdmissionPolicies().Create(t.Context(), p, metav1.CreateOptions{})
		return err
	}
	if err := create(ann, policy("maps", "ConfigMap")); err != nil {
		t.Errorf("of what she may read: %v", err)
	}
	if err := create(ann, policy("secrets", "Secret")); !apierrors.IsInvalid(err) {
		t.Errorf("of what she may not read: got %v, want invalid", err)
	}
	if err := create(admin, policy("secrets", "Secret")); err != nil {
		t.Errorf("of what an administrator may read: %v", err)
	}
	bind := func(name, policy string) error {
		deny := admissionregistrationv1.DenyAction
		_, err := ann.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Create(t.Context(), &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
				PolicyName: policy, ParamRef: &admissionregistrationv1.ParamRef{Name: "p", Namespace: "kube-system", ParameterNotFoundAction: &deny},
				ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
			},
		}, metav1.CreateOptions{})
		return err
	}
	if err := bind("maps", "maps"); err != nil {
		t.Errorf("a binding to what she may read: %v", err)
	}
	if err := bind("secrets", "secrets"); !apierrors.IsInvalid(err) {
		t.Errorf("a binding to what she may not read: got %v, want invalid", err)
	}
}

func TestDevicesOfOthersAreSeenOnlyFromMarkedNamespaces(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	yes := true
	claim := func(name string) error {
		_, err := c.ResourceV1().ResourceClaims("default").Create(t.Context(), &resourcev1.ResourceClaim{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{
				Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "c.example.com", AdminAccess: &yes},
			}}}},
		}, metav1.CreateOptions{})
		return err
	}
	if err := claim("early"); !apierrors.IsInvalid(err) {
		t.Errorf("in a namespace like any: got %v, want invalid", err)
	}
	ns, err := c.CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ns.Labels[resourcev1.DRAAdminNamespaceLabelKey] = "true"
	if _, err := c.CoreV1().Namespaces().Update(t.Context(), ns, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := claim("late"); err != nil {
		t.Errorf("in a marked namespace: %v", err)
	}
}

func TestReviewsUnderstandSelectorsAndRefuseNonsense(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	ask := func(a *authorizationv1.ResourceAttributes) (authorizationv1.SubjectAccessReviewStatus, error) {
		r, err := c.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{User: "system:node:n1", Groups: []string{"system:nodes"}, ResourceAttributes: a},
		}, metav1.CreateOptions{})
		if err != nil {
			return authorizationv1.SubjectAccessReviewStatus{}, err
		}
		return r.Status, nil
	}
	pods := func(s *authorizationv1.FieldSelectorAttributes) *authorizationv1.ResourceAttributes {
		return &authorizationv1.ResourceAttributes{Verb: "list", Resource: "pods", FieldSelector: s}
	}
	for name, row := range map[string]struct {
		selector *authorizationv1.FieldSelectorAttributes
		want     bool
	}{
		"all":             {nil, false},
		"its own":         {&authorizationv1.FieldSelectorAttributes{RawSelector: "spec.nodeName=n1"}, true},
		"another's":       {&authorizationv1.FieldSelectorAttributes{RawSelector: "spec.nodeName=n2"}, false},
		"its own, parsed": {&authorizationv1.FieldSelectorAttributes{Requirements: []metav1.FieldSelectorRequirement{{Key: "spec.nodeName", Operator: "In", Values: []string{"n1"}}}}, true},
		"all but its own": {&authorizationv1.FieldSelectorAttributes{Requirements: []metav1.FieldSelectorRequirement{{Key: "spec.nodeName", Operator: "NotIn", Values: []string{"n1"}}}}, false},
	} {
		if st, err := ask(pods(row.selector)); err != nil || st.Allowed != row.want {
			t.Errorf("a node lists pods, %s: got %+v, %v; want %v", name, st, err, row.want)
		}
	}
	if _, err := ask(nil); !apierrors.IsInvalid(err) {
		t.Errorf("no question: got %v, want invalid", err)
	}
	both := &authorizationv1.FieldSelectorAttributes{RawSelector: "a=b", Requirements: []metav1.FieldSelectorRequirement{{Key: "a", Operator: "Exists"}}}
	if _, err := ask(pods(both)); !apierrors.IsInvalid(err) {
		t.Errorf("two selectors: got %v, want invalid", err)
	}
}
