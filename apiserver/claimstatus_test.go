package apiserver_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

func TestEachPartOfAClaimsStatusHasARightOfItsOwn(t *testing.T) {
	f := start(t)
	admin := f.client(t, f.admin(t))
	on := func(resource, verb string, names ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{resourcev1.GroupName}, Resources: []string{resource}, Verbs: []string{verb}, ResourceNames: names}
	}
	status := on("resourceclaims/status", "update")
	const account = "system:serviceaccount:default:driver"
	allow(t, admin, "binder", status, on("resourceclaims/binding", "update"))
	allow(t, admin, "anywhere", status, on("resourceclaims/driver", "arbitrary-node:update", "d.example.com"))
	allow(t, admin, "other", status, on("resourceclaims/driver", "arbitrary-node:update", "other.example.com"))
	allow(t, admin, account, status, on("resourceclaims/driver", "associated-node:update", "d.example.com"))
	allow(t, admin, "nobody", status)

	claims := admin.ResourceV1().ResourceClaims("default")
	free, err := claims.Create(t.Context(), &resourcev1.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "c"},
		Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{
			Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "c.example.com"},
		}}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	given := free.DeepCopy()
	given.Status.Allocation = &resourcev1.AllocationResult{
		Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{{Request: "r", Driver: "d.example.com", Pool: "p", Device: "one"}}},
		NodeSelector: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"n1"}}},
		}}},
	}
	try := func(cfg *rest.Config, c *resourcev1.ResourceClaim, options metav1.UpdateOptions) error {
		_, err := f.client(t, cfg).ResourceV1().ResourceClaims("default").UpdateStatus(t.Context(), c, options)
		return err
	}
	dry := metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}}
	if err := try(f.user(t, "nobody"), given, dry); !apierrors.IsInvalid(err) {
		t.Errorf("given out without the right: %v", err)
	}
	if err := try(f.user(t, "binder"), given, metav1.UpdateOptions{}); err != nil {
		t.Fatalf("given out by who may bind: %v", err)
	}
	if given, err = claims.Get(t.Context(), "c", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	given.Status.Devices = []resourcev1.AllocatedDeviceStatus{{Driver: "d.example.com", Pool: "p", Device: "one"}}
	at := func(node string) *rest.Config {
		cfg := f.admin(t)
		cfg.Impersonate = rest.ImpersonationConfig{UserName: account, Extra: map[string][]string{"authentication.kubernetes.io/node-name": {node}}}
		return cfg
	}
	for who, row := range map[string]struct {
		cfg *rest.Config
		may bool
	}{
		"who may bind":                       {f.user(t, "binder"), false},
		"the driver, everywhere":             {f.user(t, "anywhere"), true},
		"another driver":                     {f.user(t, "other"), false},
		"the driver on the device's node":    {at("n1"), true},
		"the driver on another node":         {at("n2"), false},
		"who may only write claims' status":  {f.user(t, "nobody"), false},
		"an administrator, who may anything": {f.admin(t), true},
	} {
		if err := try(row.cfg, given, dry); row.may != (err == nil) || !row.may && !apierrors.IsInvalid(err) {
			t.Errorf("devices are spoken of by %s: %v, want it %v", who, err, row.may)
		}
	}
}
