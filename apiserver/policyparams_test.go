package apiserver_test

import (
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	crdclient "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
)

// bounded makes a policy that refuses services whose first port is above what
// the expression makes of the parameter "limit" of a kind.
func bounded(t *testing.T, c kubernetes.Interface, name, version, kind, expression string) {
	t.Helper()
	deny := admissionregistrationv1.DenyAction
	p := policy(name, kind)
	p.Spec.ParamKind.APIVersion = version
	p.Spec.MatchConstraints.ResourceRules[0].Rule = admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"services"}}
	p.Spec.Validations = []admissionregistrationv1.Validation{{Expression: "object.spec.ports[0].port <= " + expression, Message: "too high"}}
	if _, err := c.AdmissionregistrationV1().ValidatingAdmissionPolicies().Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Create(t.Context(), &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: name, ParamRef: &admissionregistrationv1.ParamRef{Name: "limit", Namespace: "default", ParameterNotFoundAction: &deny},
			ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func unbounded(t *testing.T, c kubernetes.Interface, name string) {
	t.Helper()
	if err := c.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.AdmissionregistrationV1().ValidatingAdmissionPolicies().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// port tries a service of the port.
func port(t *testing.T, c kubernetes.Interface, n int32) error {
	t.Helper()
	_, err := c.CoreV1().Services("default").Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "s-"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: n}}},
	}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// limitIs waits until exactly the ports up to n are let through.
func limitIs(t *testing.T, c kubernetes.Interface, n int32) {
	t.Helper()
	within(t, "the limit is in force", func() bool {
		err := port(t, c, n+1)
		return port(t, c, n) == nil && err != nil && strings.Contains(err.Error(), "too high")
	})
}

func TestPoliciesTakeParametersFromCustomResources(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	defs, err := crdclient.NewForConfig(f.admin(t))
	if err != nil {
		t.Fatal(err)
	}
	dyn, err := dynamic.NewForConfig(f.admin(t))
	if err != nil {
		t.Fatal(err)
	}
	tabs := dyn.Resource(schema.GroupVersionResource{Group: "stable.example.com", Version: "v1", Resource: "crontabs"}).Namespace("default")
	set := func(n int64) error {
		_, err := tabs.Apply(t.Context(), "limit", &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": map[string]any{"name": "limit"}, "spec": map[string]any{"replicas": n},
		}}, metav1.ApplyOptions{FieldManager: "test", Force: true})
		return err
	}
	// Policies are in force, and wait for the kind, before it is defined.
	bounded(t, c, "tabs", "stable.example.com/v1", "CronTab", "params.spec.replicas")
	within(t, "what cannot be judged is refused", func() bool { return port(t, c, 1) != nil })
	if _, err := defs.ApiextensionsV1().CustomResourceDefinitions().Create(t.Context(), crontabs(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	within(t, "the parameter is made", func() bool { return set(100) == nil })
	limitIs(t, c, 100)
	if err := set(200); err != nil {
		t.Fatal(err)
	}
	limitIs(t, c, 200)
	unbounded(t, c, "tabs")
	within(t, "nothing is limited", func() bool { return port(t, c, 1000) == nil })
	if err := set(300); err != nil {
		t.Fatal(err)
	}
	bounded(t, c, "tabs", "stable.example.com/v1", "CronTab", "params.spec.replicas")
	limitIs(t, c, 300)

	allow(t, c, "ann",
		rbacv1.PolicyRule{APIGroups: []string{admissionregistrationv1.GroupName}, Resources: []string{"*"}, Verbs: []string{"create"}},
		rbacv1.PolicyRule{APIGroups: []string{"stable.example.com"}, Resources: []string{"crontabs"}, Verbs: []string{"get"}})
	allow(t, c, "bob", rbacv1.PolicyRule{APIGroups: []string{admissionregistrationv1.GroupName}, Resources: []string{"*"}, Verbs: []string{"create"}})
	for who, may := range map[string]bool{"ann": true, "bob": false} {
		p := policy("of-"+who, "CronTab")
		p.Spec.ParamKind.APIVersion = "stable.example.com/v1"
		_, err := f.client(t, f.user(t, who)).AdmissionregistrationV1().ValidatingAdmissionPolicies().Create(t.Context(), p, metav1.CreateOptions{})
		if may != (err == nil) || !may && !apierrors.IsInvalid(err) {
			t.Errorf("%s, who may read the parameters: %v: %v", who, may, err)
		}
	}
}

func TestAPolicyThatComesBackSeesItsParametersAsTheyAre(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	mustCreate(t, c, configMap("limit", map[string]string{"port": "100"}))
	bounded(t, c, "maps", "v1", "ConfigMap", "int(params.data.port)")
	limitIs(t, c, 100)
	unbounded(t, c, "maps")
	within(t, "nothing is limited", func() bool { return port(t, c, 1000) == nil })
	// The plugin looks for changes each second; until then it holds the informer.
	bounded(t, c, "others", "v1", "Secret", "1")
	within(t, "the informer has been let go", func() bool { err := port(t, c, 1000); return err != nil })
	if _, err := c.CoreV1().ConfigMaps("default").Update(t.Context(), configMap("limit", map[string]string{"port": "200"}), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	unbounded(t, c, "others")
	bounded(t, c, "maps", "v1", "ConfigMap", "int(params.data.port)")
	limitIs(t, c, 200)
}
