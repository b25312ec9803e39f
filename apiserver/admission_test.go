package apiserver_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func amounts(cpu, memory string) corev1.ResourceList {
	out := corev1.ResourceList{}
	if cpu != "" {
		out[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		out[corev1.ResourceMemory] = resource.MustParse(memory)
	}
	return out
}

func demanding(name string, requests, limits corev1.ResourceList) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits},
		}}},
	}
}

func TestLimitRangesFillInAndBound(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	account(t, c, "default")
	pods := c.CoreV1().Pods("default")
	_, err := c.CoreV1().LimitRanges("default").Create(t.Context(), &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Name: "bounds"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{
			{
				Type: corev1.LimitTypeContainer, Min: amounts("50m", ""), Max: amounts("500m", ""),
				DefaultRequest: amounts("100m", "20Mi"), Default: amounts("300m", "50Mi"), MaxLimitRequestRatio: amounts("4", ""),
			},
			{Type: corev1.LimitTypePersistentVolumeClaim, Max: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("2Gi")}},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := pods.Create(t.Context(), demanding("plain", nil, nil), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r := p.Spec.Containers[0].Resources
	if r.Requests.Cpu().String() != "100m" || r.Limits.Memory().String() != "50Mi" {
		t.Errorf("the container got %v", r)
	}
	if got, want := p.Annotations["kubernetes.io/limit-ranger"],
		"LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c"; got != want {
		t.Errorf("noted %q, want %q", got, want)
	}
	for name, row := range map[string]struct {
		requests, limits corev1.ResourceList
		want             string
	}{
		"less":  {amounts("10m", ""), amounts("40m", ""), "minimum cpu usage per Container is 50m, but request is 10m"},
		"more":  {amounts("400m", ""), amounts("600m", ""), "maximum cpu usage per Container is 500m, but limit is 600m"},
		"ratio": {amounts("60m", ""), amounts("480m", ""), "cpu max limit to request ratio per Container is 4, but provided ratio is 8.000000"},
	} {
		_, err := pods.Create(t.Context(), demanding(name, row.requests, row.limits), metav1.CreateOptions{})
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %q", name, err, row.want)
		}
	}
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "big"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("3Gi")}},
	}}
	if _, err := c.CoreV1().PersistentVolumeClaims("default").Create(t.Context(), claim, metav1.CreateOptions{}); err == nil ||
		!strings.Contains(err.Error(), "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi") {
		t.Errorf("a large claim: %v", err)
	}
}

func TestDefaultClassesAndProtection(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	_, err := c.StorageV1().StorageClasses().Create(t.Context(), &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: "usual", Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}}, Provisioner: "skein.test/disk",
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	claim, err := c.CoreV1().PersistentVolumeClaims("default").Create(t.Context(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "some"}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}, metav1.CreateOptions{})
	if err != nil || claim.Spec.StorageClassName == nil || *claim.Spec.StorageClassName != "usual" || !slices.Contains(claim.Finalizers, "kubernetes.io/pvc-protection") {
		t.Errorf("the claim is %v (%v)", claim, err)
	}
	_, err = c.NetworkingV1().IngressClasses().Create(t.Context(), &networkingv1.IngressClass{
		ObjectMeta: metav1.ObjectMeta{Name: "usual", Annotations: map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}},
		Spec:       networkingv1.IngressClassSpec{Controller: "skein.test/ingress"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ing, err := c.NetworkingV1().Ingresses("default").Create(t.Context(), &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: "some"}, Spec: networkingv1.IngressSpec{DefaultBackend: &networkingv1.IngressBackend{
			Service: &networkingv1.IngressServiceBackend{Name: "s", Port: networkingv1.ServiceBackendPort{Number: 80}},
		}},
	}, metav1.CreateOptions{})
	if err != nil || ing.Spec.IngressClassName == nil || *ing.Spec.IngressClassName != "usual" {
		t.Errorf("the ingress is %v (%v)", ing, err)
	}
}

func TestARuntimeClassSetsOverheadAndPlace(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	account(t, c, "default")
	pods := c.CoreV1().Pods("default")
	name := "heavy"
	p := demanding("a", nil, nil)
	p.Spec.RuntimeClassName = &name
	if _, err := pods.Create(t.Context(), p, metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), `pod rejected: RuntimeClass "heavy" not found`) {
		t.Errorf("without its class: %v", err)
	}
	_, err := c.NodeV1().RuntimeClasses().Create(t.Context(), &nodev1.RuntimeClass{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Handler: "runc",
		Overhead:   &nodev1.Overhead{PodFixed: amounts("10m", "")},
		Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{"disk": "fast"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := pods.Create(t.Context(), p, metav1.CreateOptions{})
	if err != nil || got.Spec.Overhead.Cpu().String() != "10m" || got.Spec.NodeSelector["disk"] != "fast" {
		t.Errorf("the pod is %v (%v)", got, err)
	}
	odd := demanding("b", nil, nil)
	odd.Spec.Overhead = amounts("1", "")
	if _, err := pods.Create(t.Context(), odd, metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), "without corresponding RuntimeClass") {
		t.Errorf("overhead of its own: %v", err)
	}
}

func TestANewClusterHasTheUsualObjects(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	cidr, err := c.NetworkingV1().ServiceCIDRs().Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil || len(cidr.Spec.CIDRs) == 0 || len(cidr.Status.Conditions) != 1 {
		t.Errorf("the range of services is %v (%v)", cidr, err)
	}
	class, err := c.SchedulingV1().PriorityClasses().Get(t.Context(), "system-node-critical", metav1.GetOptions{})
	if err != nil || class.Value != 2000001000 {
		t.Errorf("the highest priority is %v (%v)", class, err)
	}
}

func TestAQuotaIsBookedBeforeTheObjectExists(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	account(t, c, "default")
	quotas := c.CoreV1().ResourceQuotas("default")
	hard := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1"), corev1.ResourceRequestsCPU: resource.MustParse("200m"), "count/configmaps": resource.MustParse("2")}
	q, err := quotas.Create(t.Context(), &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "few"}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	q.Status.Hard, q.Status.Used = hard, corev1.ResourceList{ // as the controller counts them
		corev1.ResourcePods: resource.MustParse("0"), corev1.ResourceRequestsCPU: resource.MustParse("0"), "count/configmaps": resource.MustParse("1"),
	}
	if _, err := quotas.UpdateStatus(t.Context(), q, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	refused := func(what string, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", what, err, want)
		}
	}
	pods := c.CoreV1().Pods("default")
	_, err = pods.Create(t.Context(), demanding("silent", nil, nil), metav1.CreateOptions{})
	refused("a pod that asks for nothing", err, "failed quota: few: must specify requests.cpu for: c")
	_, err = pods.Create(t.Context(), demanding("greedy", amounts("300m", ""), nil), metav1.CreateOptions{})
	refused("a pod that asks for too much", err, "exceeded quota: few, requested: requests.cpu=300m, used: requests.cpu=0, limited: requests.cpu=200m")
	if _, err := pods.Create(t.Context(), demanding("modest", amounts("100m", ""), nil), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if q, err = quotas.Get(t.Context(), "few", metav1.GetOptions{}); err != nil || q.Status.Used.Pods().String() != "1" {
		t.Errorf("booked %v (%v), want one pod", q.Status.Used, err)
	}
	_, err = pods.Create(t.Context(), demanding("second", amounts("10m", ""), nil), metav1.CreateOptions{})
	refused("a second pod", err, "exceeded quota: few, requested: pods=1, used: pods=1, limited: pods=1")
	for i, name := range []string{"one", "two"} {
		_, err := c.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		if (err == nil) != (i == 0) {
			t.Errorf("config map %s: %v", name, err)
		}
	}
}

func TestAnEvictionSpendsItsBudget(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	account(t, c, "default")
	pods, budgets := c.CoreV1().Pods("default"), c.PolicyV1().PodDisruptionBudgets("default")
	labels := map[string]string{"app": "a"}
	for _, name := range []string{"one", "two"} {
		p := demanding(name, nil, nil)
		p.Labels = labels
		p, err := pods.Create(t.Context(), p, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		if _, err := pods.UpdateStatus(t.Context(), p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	evict := func(name string) error {
		ev := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name}}
		return c.CoreV1().RESTClient().Post().Namespace("default").Resource("pods").Name(name).SubResource("eviction").
			Body(ev).MaxRetries(0).Do(t.Context()).Error() // the client would wait and try again as it is told to
	}
	b, err := budgets.Create(t.Context(), &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "half"}, Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := evict("one"); !apierrors.IsTooManyRequests(err) || !apierrors.HasStatusCause(err, policyv1.DisruptionBudgetCause) {
		t.Errorf("a budget that is not counted yet: %v", err)
	}
	b.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: b.Generation, DisruptionsAllowed: 1, DesiredHealthy: 1, CurrentHealthy: 2, ExpectedPods: 2}
	if _, err := budgets.UpdateStatus(t.Context(), b, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := evict("one"); err != nil {
		t.Fatal(err)
	}
	if b, err = budgets.Get(t.Context(), "half", metav1.GetOptions{}); err != nil || b.Status.DisruptionsAllowed != 0 || len(b.Status.DisruptedPods) != 1 {
		t.Errorf("after one eviction the budget says %v (%v)", b.Status, err)
	}
	if err := evict("two"); !apierrors.IsTooManyRequests(err) || !strings.Contains(err.Error(), "Cannot evict pod as it would violate the pod's disruption budget.") {
		t.Errorf("a second eviction: %v", err)
	}
}

func TestOnlyWhoMaySignApproves(t *testing.T) {
	f := start(t)
	admin := f.client(t, f.admin(t))
	csrs := admin.CertificatesV1().CertificateSigningRequests()
	request := func(org string) *certificatesv1.CertificateSigningRequest {
		key := newKey(t)
		raw, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "ann", Organization: []string{org}}}, key)
		if err != nil {
			t.Fatal(err)
		}
		return &certificatesv1.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{Name: "ann"},
			Spec: certificatesv1.CertificateSigningRequestSpec{
				Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: raw}), SignerName: certificatesv1.KubeAPIServerClientSignerName,
				Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
			},
		}
	}
	if _, err := csrs.Create(t.Context(), request("system:masters"), metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), "system:masters group is not allowed") {
		t.Errorf("a request for an administrator: %v", err)
	}
	made, err := csrs.Create(t.Context(), request("staff"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rules := []rbacv1.PolicyRule{{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"certificatesigningrequests/approval"}, Verbs: []string{"update"}}}
	if _, err := admin.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "approver"}, Rules: rules}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "approver"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "approver"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "bob"}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	made.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "r", Message: "m"}}
	bob := f.client(t, f.user(t, "bob"))
	if _, err := bob.CertificatesV1().CertificateSigningRequests().UpdateApproval(t.Context(), "ann", made, metav1.UpdateOptions{}); err == nil ||
		!strings.Contains(err.Error(), `user not permitted to approve requests with signerName "kubernetes.io/kube-apiserver-client"`) {
		t.Errorf("bob, who may approve but not for this signer: %v", err)
	}
	if _, err := csrs.UpdateApproval(t.Context(), "ann", made, metav1.UpdateOptions{}); err != nil {
		t.Errorf("the administrator: %v", err)
	}
}
