package controllers_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	certv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestRealAPIPreemption(t *testing.T) {
	m := serve(t)
	m.namespace("app")
	if _, err := m.admin.SchedulingV1().PriorityClasses().Create(t.Context(), &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "high"}, Value: 1000}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := func(name, class, cpu string) {
		t.Helper()
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: template("p", nil).Spec}
		p.Spec.PriorityClassName = class
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
		if _, err := m.admin.CoreV1().Pods("app").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		pod(fmt.Sprintf("low-%d", i), "", "3")
	}
	m.wait("the nodes are full", func() bool { return len(m.running("app")) == 3 })
	pod("high", "high", "3")
	waitFor(m, "the high pod runs", func() (*corev1.Pod, error) {
		return m.admin.CoreV1().Pods("app").Get(t.Context(), "high", metav1.GetOptions{})
	}, func(p *corev1.Pod) bool { return p.Spec.NodeName != "" })
	m.wait("one low pod has gone", func() bool {
		n := 0
		for i := range 3 {
			if _, err := m.admin.CoreV1().Pods("app").Get(t.Context(), fmt.Sprintf("low-%d", i), metav1.GetOptions{}); err == nil {
				n++
			}
		}
		return n == 2
	})
}

func TestRealAPIBudgetCountsItsPods(t *testing.T) {
	m := serve(t)
	m.namespace("app")
	m.deploy("app", 3)
	one := intstr.FromInt32(1)
	pdb := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &one, Selector: selector("hello")}}
	if _, err := m.admin.PolicyV1().PodDisruptionBudgets("app").Create(t.Context(), pdb, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(m, "one may go", func() (*policyv1.PodDisruptionBudget, error) {
		return m.admin.PolicyV1().PodDisruptionBudgets("app").Get(t.Context(), "b", metav1.GetOptions{})
	}, func(b *policyv1.PodDisruptionBudget) bool {
		return b.Status.DisruptionsAllowed == 1 && b.Status.ExpectedPods == 3 && b.Status.CurrentHealthy == 3 && b.Status.ObservedGeneration == b.Generation
	})
}

func TestRealAPIQuotaIsGivenBack(t *testing.T) {
	m := serve(t)
	m.namespace("app")
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{
		corev1.ResourcePods: resource.MustParse("5"), "count/deployments.apps": resource.MustParse("5"), corev1.ResourceConfigMaps: resource.MustParse("5"),
		"count/leases.coordination.k8s.io": resource.MustParse("5"),
	}}}
	m.deploy("app", 2)
	if _, err := m.admin.CoreV1().ResourceQuotas("app").Create(t.Context(), q, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	get := func() (*corev1.ResourceQuota, error) {
		return m.admin.CoreV1().ResourceQuotas("app").Get(t.Context(), "q", metav1.GetOptions{})
	}
	used := func(pods, deployments int64) func(*corev1.ResourceQuota) bool {
		return func(q *corev1.ResourceQuota) bool {
			p, d, c := q.Status.Used[corev1.ResourcePods], q.Status.Used["count/deployments.apps"], q.Status.Used[corev1.ResourceConfigMaps]
			return p.Value() == pods && d.Value() == deployments && c.Value() == 1 && len(q.Status.Hard) == 4
		}
	}
	waitFor(m, "what was there is counted", get, used(2, 1))
	policy := metav1.DeletePropagationBackground
	if err := m.admin.AppsV1().Deployments("app").Delete(t.Context(), "hello", metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
		t.Fatal(err)
	}
	waitFor(m, "what has gone is given back", get, used(0, 0))
}

func TestRealAPIQuotaCatchesUpWithWhatAdmissionMissed(t *testing.T) {
	m := serve(t)
	m.namespace("app")
	quotas := m.admin.CoreV1().ResourceQuotas("app")
	get := func() (*corev1.ResourceQuota, error) { return quotas.Get(t.Context(), "q", metav1.GetOptions{}) }
	used := func(n int64) func(*corev1.ResourceQuota) bool {
		return func(q *corev1.ResourceQuota) bool {
			return len(q.Status.Hard) == 1 && q.Status.Used.Pods().Value() == n
		}
	}
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: corev1.ResourceQuotaSpec{
		Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("5")},
	}}
	if _, err := quotas.Create(t.Context(), q, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(m, "nothing is used", get, used(0))
	pod := func(name string) {
		t.Helper()
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: template("p", nil).Spec}
		if _, err := m.admin.CoreV1().Pods("app").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	pod("a")
	waitFor(m, "a is booked", get, used(1))
	// As if a had come through a peer whose replica had no quota yet.
	q, err := get()
	if err != nil {
		t.Fatal(err)
	}
	q.Status.Used[corev1.ResourcePods] = resource.MustParse("0")
	if _, err := quotas.UpdateStatus(t.Context(), q, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod("b")
	waitFor(m, "both are counted", get, used(2))
}

func TestRealAPIClusterRolesAreAggregated(t *testing.T) {
	m := serve(t)
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "things", Labels: map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{"example.com"}, Resources: []string{"things"}, Verbs: []string{"get"}}},
	}
	if _, err := m.admin.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	has := func(name string) bool {
		r, err := m.admin.RbacV1().ClusterRoles().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, rule := range r.Rules {
			if rule.APIGroups[0] == "example.com" {
				return true
			}
		}
		return false
	}
	m.wait("view has it", func() bool { return has("view") })
	m.wait("and so has admin, through edit", func() bool { return has("edit") && has("admin") })
}

func (m *mesh) volume(name, class, node string) {
	m.Helper()
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("5Gi")}, StorageClassName: class,
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
		PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/mnt/" + name}},
		NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
		}}}},
	}}
	if _, err := m.admin.CoreV1().PersistentVolumes().Create(m.Context(), v, metav1.CreateOptions{}); err != nil {
		m.Fatal(err)
	}
}

func (m *mesh) claim(name, class string) {
	m.Helper()
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
		StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
	}}
	if _, err := m.admin.CoreV1().PersistentVolumeClaims("app").Create(m.Context(), c, metav1.CreateOptions{}); err != nil {
		m.Fatal(err)
	}
}

func TestRealAPIPolicyIsToldWhichExpressionsDoNotFit(t *testing.T) {
	m := serve(t)
	policies := m.admin.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	if _, err := policies.Create(t.Context(), &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "replicas"},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create},
					Rule:       admissionv1.Rule{APIGroups: []string{"apps"}, APIVersions: []string{"v1"}, Resources: []string{"deployments"}},
				},
			}}},
			Validations: []admissionv1.Validation{{Expression: "object.spec.replicas > 1"}, {Expression: "object.spec.replicas > '1'"}},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(m, "the policy is checked", func() (*admissionv1.ValidatingAdmissionPolicy, error) {
		return policies.Get(t.Context(), "replicas", metav1.GetOptions{})
	}, func(p *admissionv1.ValidatingAdmissionPolicy) bool {
		if p.Status.ObservedGeneration != p.Generation || p.Status.TypeChecking == nil {
			return false
		}
		w := p.Status.TypeChecking.ExpressionWarnings
		return len(w) == 1 && w[0].FieldRef == "spec.validations[1].expression" && strings.Contains(w[0].Warning, "found no matching overload")
	})
}

func TestRealAPIAttributesClassStaysWhileAClaimHasIt(t *testing.T) {
	m := serve(t)
	m.namespace("app")
	classes := m.admin.StorageV1().VolumeAttributesClasses()
	name := "fast"
	if _, err := classes.Create(t.Context(), &storagev1.VolumeAttributesClass{
		ObjectMeta: metav1.ObjectMeta{Name: name}, DriverName: "example.com", Parameters: map[string]string{"iops": "1"},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	none := ""
	claims := m.admin.CoreV1().PersistentVolumeClaims("app")
	if _, err := claims.Create(t.Context(), &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
		StorageClassName: &none, VolumeAttributesClassName: &name, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := classes.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if c, err := classes.Get(t.Context(), name, metav1.GetOptions{}); err != nil || c.DeletionTimestamp == nil {
		t.Fatalf("a class in use, deleted: got %v, %v, want it kept", c, err)
	}
	if err := claims.Delete(t.Context(), "data", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	m.wait("the class has gone", func() bool {
		_, err := classes.Get(t.Context(), name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

func TestRealAPIVolumesAreBoundAndReleased(t *testing.T) {
	m := serve(t)
	m.namespace("app")
	wait := storagev1.VolumeBindingWaitForFirstConsumer
	if _, err := m.admin.StorageV1().StorageClasses().Create(t.Context(), &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: "late"}, Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: &wait,
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	m.volume("now", "hand", "n1")
	m.volume("later", "late", "n2")
	m.claim("now", "hand")
	m.claim("later", "late")
	phase := func(name string, want corev1.PersistentVolumeClaimPhase) {
		t.Helper()
		waitFor(m, name+" is "+string(want), func() (*corev1.PersistentVolumeClaim, error) {
			return m.admin.CoreV1().PersistentVolumeClaims("app").Get(t.Context(), name, metav1.GetOptions{})
		}, func(c *corev1.PersistentVolumeClaim) bool { return c.Status.Phase == want })
	}
	phase("now", corev1.ClaimBound)
	phase("later", corev1.ClaimPending)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: template("p", nil).Spec}
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "later"}}}}
	if _, err := m.admin.CoreV1().Pods("app").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	phase("later", corev1.ClaimBound)
	waitFor(m, "the pod runs where its volume is", func() (*corev1.Pod, error) {
		return m.admin.CoreV1().Pods("app").Get(t.Context(), "p", metav1.GetOptions{})
	}, func(p *corev1.Pod) bool { return p.Spec.NodeName == "n2" })
	client := m.admin.CoreV1().PersistentVolumeClaims("app")
	if err := client.Delete(t.Context(), "later", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, err := client.Get(t.Context(), "later", metav1.GetOptions{}); err != nil || got.DeletionTimestamp == nil {
		t.Errorf("a claim in use is deleted: %v", err)
	}
	if err := m.admin.CoreV1().Pods("app").Delete(t.Context(), "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	m.wait("the claim goes after its pod", func() bool {
		_, err := client.Get(t.Context(), "later", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	waitFor(m, "the volume is released", func() (*corev1.PersistentVolume, error) {
		return m.admin.CoreV1().PersistentVolumes().Get(t.Context(), "later", metav1.GetOptions{})
	}, func(v *corev1.PersistentVolume) bool { return v.Status.Phase == corev1.VolumeReleased })
}

func TestRealAPIAutoscalerKeepsItsBounds(t *testing.T) {
	m := serve(t)
	m.namespace("app")
	m.deploy("app", 1)
	h := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: "h"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "hello"}, MinReplicas: new(int32(2)), MaxReplicas: 3,
	}}
	if _, err := m.admin.AutoscalingV2().HorizontalPodAutoscalers("app").Create(t.Context(), h, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	m.wait("two replicas", func() bool { return len(m.podsOf("app", "hello")) == 2 })
	waitFor(m, "the status says so", func() (*autoscalingv2.HorizontalPodAutoscaler, error) {
		return m.admin.AutoscalingV2().HorizontalPodAutoscalers("app").Get(t.Context(), "h", metav1.GetOptions{})
	}, func(h *autoscalingv2.HorizontalPodAutoscaler) bool {
		return h.Status.DesiredReplicas == 2 && h.Status.LastScaleTime != nil
	})
}

func TestRealAPINodesGetTheirCertificates(t *testing.T) {
	m := serve(t)
	if !served(schema.GroupResource{Group: certv1.GroupName, Resource: "certificatesigningrequests"}) {
		t.Skip("certificate signing requests are not served")
	}
	node := m.server.Client(m.server.User("system:node:n1", "system:nodes"))
	bind := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "nodes-renew"}, Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: "system:nodes"}},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "nodes-renew"},
	}
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "nodes-renew"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{certv1.GroupName}, Resources: []string{"certificatesigningrequests"}, Verbs: []string{"create", "get"}},
		{APIGroups: []string{certv1.GroupName}, Resources: []string{"certificatesigningrequests/selfnodeclient"}, Verbs: []string{"create"}},
	}}
	if _, err := m.admin.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.admin.RbacV1().ClusterRoleBindings().Create(t.Context(), bind, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}}, key)
	if err != nil {
		t.Fatal(err)
	}
	req := &certv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: certv1.CertificateSigningRequestSpec{
		Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: certv1.KubeAPIServerClientKubeletSignerName,
		Usages: []certv1.KeyUsage{certv1.UsageDigitalSignature, certv1.UsageClientAuth},
	}}
	m.wait("the request is taken", func() bool {
		_, err := node.CertificatesV1().CertificateSigningRequests().Create(t.Context(), req, metav1.CreateOptions{})
		if err != nil {
			t.Log(err)
		}
		return err == nil
	})
	waitFor(m, "the certificate", func() (*certv1.CertificateSigningRequest, error) {
		return m.admin.CertificatesV1().CertificateSigningRequests().Get(t.Context(), "n1", metav1.GetOptions{})
	}, func(r *certv1.CertificateSigningRequest) bool { return len(r.Status.Certificate) > 0 })
}

func TestRealAPITokensGoWithTheirAccount(t *testing.T) {
	m := serve(t)
	m.namespace("app")
	if _, err := m.admin.CoreV1().ServiceAccounts("app").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "token", Annotations: map[string]string{corev1.ServiceAccountNameKey: "robot"}}, Type: corev1.SecretTypeServiceAccountToken}
	if _, err := m.admin.CoreV1().Secrets("app").Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	get := func() (*corev1.Secret, error) {
		return m.admin.CoreV1().Secrets("app").Get(t.Context(), "token", metav1.GetOptions{})
	}
	waitFor(m, "the token", get, func(s *corev1.Secret) bool {
		return string(s.Data["token"]) == "token of robot" && len(s.Data["ca.crt"]) > 0
	})
	if err := m.admin.CoreV1().ServiceAccounts("app").Delete(t.Context(), "robot", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	m.wait("the secret is gone", func() bool { _, err := get(); return apierrors.IsNotFound(err) })
}

func TestRealAPIEndpointsAreMirrored(t *testing.T) {
	m := serve(t)
	m.namespace("app")
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "web", Port: 80}}}}
	if _, err := m.admin.CoreV1().Services("app").Create(t.Context(), svc, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ep := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Subsets: []corev1.EndpointSubset{{ //nolint:staticcheck // people still write them
		Addresses: []corev1.EndpointAddress{{IP: "10.9.8.7"}}, Ports: []corev1.EndpointPort{{Name: "web", Port: 8080}},
	}}}
	if _, err := m.admin.CoreV1().Endpoints("app").Create(t.Context(), ep, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	mirrored := func() []discoveryv1.EndpointSlice {
		l, err := m.admin.DiscoveryV1().EndpointSlices("app").List(t.Context(), metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=s"})
		if err != nil {
			t.Fatal(err)
		}
		return l.Items
	}
	m.wait("a slice", func() bool {
		l := mirrored()
		return len(l) == 1 && len(l[0].Endpoints) == 1 && l[0].Endpoints[0].Addresses[0] == "10.9.8.7" && *l[0].Ports[0].Port == 8080
	})
	if err := m.admin.CoreV1().Endpoints("app").Delete(t.Context(), "s", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	m.wait("no slice", func() bool { return len(mirrored()) == 0 })
}
