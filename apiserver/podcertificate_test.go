package apiserver_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const testSigner = "example.com/test"

// certified is what a pod's certificate is asked with and answered by.
type certified struct {
	request []byte
	answer  certificatesv1.PodCertificateRequestStatus
}

func newCertified(t *testing.T, life time.Duration) certified {
	t.Helper()
	key := newKey(t)
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now().Add(-time.Minute).Truncate(time.Second)
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "p"}, NotBefore: begin, NotAfter: begin.Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	from, to, refresh := metav1.NewTime(begin), metav1.NewTime(begin.Add(life)), metav1.NewTime(begin.Add(15*time.Minute))
	return certified{request: request, answer: certificatesv1.PodCertificateRequestStatus{
		CertificateChain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		NotBefore:        &from, NotAfter: &to, BeginRefreshAt: &refresh,
		Conditions: []metav1.Condition{{
			Type: certificatesv1.PodCertificateRequestConditionTypeIssued, Status: metav1.ConditionTrue, Reason: "Test",
			Message: "issued", LastTransitionTime: metav1.Now(),
		}},
	}}
}

func allow(t *testing.T, admin kubernetes.Interface, who string, rules ...rbacv1.PolicyRule) {
	t.Helper()
	_, err := admin.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: who}, Rules: rules}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = admin.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: who}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: who},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: who}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// podOf is a pod on the node n1 that mounts a certificate of the test's signer.
func podOf(t *testing.T, c kubernetes.Interface) (*corev1.Node, *corev1.Pod, *corev1.ServiceAccount) {
	t.Helper()
	node, err := c.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	sa := account(t, c, "bot")
	pod, err := c.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p"},
		Spec: corev1.PodSpec{
			ServiceAccountName: "bot", NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: "i"}},
			Volumes: []corev1.Volume{{Name: "tls", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{
				PodCertificate: &corev1.PodCertificateProjection{SignerName: testSigner, KeyType: "ECDSAP256", CredentialBundlePath: "bundle.pem"},
			}}}}}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return node, pod, sa
}

func TestPodCertificatesAreAskedByTheirNodeAndAnsweredByTheirSigner(t *testing.T) {
	f := start(t)
	admin := f.client(t, f.admin(t))
	node, pod, sa := podOf(t, admin)
	allow(t, admin, "signer",
		rbacv1.PolicyRule{APIGroups: []string{certificatesv1.GroupName}, Resources: []string{"podcertificaterequests/status"}, Verbs: []string{"update"}},
		rbacv1.PolicyRule{APIGroups: []string{certificatesv1.GroupName}, Resources: []string{"signers"}, ResourceNames: []string{testSigner}, Verbs: []string{"sign"}})
	allow(t, admin, "writer",
		rbacv1.PolicyRule{APIGroups: []string{certificatesv1.GroupName}, Resources: []string{"podcertificaterequests/status"}, Verbs: []string{"update"}})
	own := newCertified(t, time.Hour)
	ask := func(user, signer string, change func(*certificatesv1.PodCertificateRequestSpec)) (*certificatesv1.PodCertificateRequest, error) {
		spec := certificatesv1.PodCertificateRequestSpec{
			SignerName: signer, PodName: "p", PodUID: pod.UID, ServiceAccountName: "bot", ServiceAccountUID: sa.UID,
			NodeName: "n1", NodeUID: node.UID, StubPKCS10Request: own.request,
		}
		if change != nil {
			change(&spec)
		}
		return f.client(t, f.user(t, "system:node:"+user, "system:nodes")).CertificatesV1().PodCertificateRequests("default").Create(t.Context(),
			&certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{GenerateName: "r-"}, Spec: spec}, metav1.CreateOptions{})
	}
	for name, err := range map[string]error{
		"another node":      second(ask("n2", testSigner, nil)),
		"another signer":    second(ask("n1", "example.com/other", nil)),
		"another pod's UID": second(ask("n1", testSigner, func(s *certificatesv1.PodCertificateRequestSpec) { s.PodUID = "x" })),
		"another account":   second(ask("n1", testSigner, func(s *certificatesv1.PodCertificateRequestSpec) { s.ServiceAccountName = "default" })),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v, want forbidden", name, err)
		}
	}
	request, err := ask("n1", testSigner, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := request.Spec.MaxExpirationSeconds; n == nil || *n != 86400 {
		t.Errorf("life by default: got %v, want 86400", n)
	}
	answer := func(user string, status certificatesv1.PodCertificateRequestStatus) error {
		r := request.DeepCopy()
		r.Status = status
		_, err := f.client(t, f.user(t, user)).CertificatesV1().PodCertificateRequests("default").UpdateStatus(t.Context(), r, metav1.UpdateOptions{})
		return err
	}
	if err := answer("writer", own.answer); !apierrors.IsInvalid(err) {
		t.Errorf("who may not sign: got %v, want invalid", err)
	}
	for name, bad := range map[string]certificatesv1.PodCertificateRequestStatus{
		"for another key": newCertified(t, time.Hour).answer,
		"without times":   {CertificateChain: own.answer.CertificateChain, Conditions: own.answer.Conditions},
		"without a word":  {CertificateChain: own.answer.CertificateChain},
	} {
		if err := answer("signer", bad); !apierrors.IsInvalid(err) {
			t.Errorf("%s: got %v, want invalid", name, err)
		}
	}
	if err := answer("signer", own.answer); err != nil {
		t.Fatal(err)
	}
	request, err = f.client(t, f.user(t, "system:node:n1", "system:nodes")).CertificatesV1().PodCertificateRequests("default").Get(t.Context(), request.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := answer("signer", certificatesv1.PodCertificateRequestStatus{}); !apierrors.IsInvalid(err) {
		t.Errorf("taking an answer back: got %v, want invalid", err)
	}
	_, err = f.client(t, f.user(t, "system:node:n2", "system:nodes")).CertificatesV1().PodCertificateRequests("default").Get(t.Context(), request.Name, metav1.GetOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("another node reads it: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestOnlyWhoMayAttestSpeaksForASigner(t *testing.T) {
	f := start(t)
	admin := f.client(t, f.admin(t))
	write := rbacv1.PolicyRule{APIGroups: []string{certificatesv1.GroupName}, Resources: []string{"clustertrustbundles"}, Verbs: []string{"create"}}
	allow(t, admin, "writer", write)
	allow(t, admin, "attester", write,
		rbacv1.PolicyRule{APIGroups: []string{certificatesv1.GroupName}, Resources: []string{"signers"}, ResourceNames: []string{"example.com/*"}, Verbs: []string{"attest"}})
	bundle := func(user, name, signer string) error {
		_, err := f.client(t, f.user(t, user)).CertificatesV1().ClusterTrustBundles().Create(t.Context(), &certificatesv1.ClusterTrustBundle{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: string(f.ca.pem)},
		}, metav1.CreateOptions{})
		return err
	}
	if err := bundle("writer", "example.com:test:a", testSigner); !apierrors.IsForbidden(err) {
		t.Errorf("who may only write: got %v, want forbidden", err)
	}
	if err := bundle("writer", "mine", ""); err != nil {
		t.Errorf("a bundle of no signer: %v", err)
	}
	if err := bundle("attester", "example.com:test:b", testSigner); err != nil {
		t.Errorf("who may attest: %v", err)
	}
}
