package csr_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	certv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/controllers/csr"
)

func request(t *testing.T, name string, orgs []string, dns ...string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name, Organization: orgs}, DNSNames: dns}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

var (
	nodes  = []string{"system:nodes"}
	client = []certv1.KeyUsage{certv1.UsageDigitalSignature, certv1.UsageClientAuth}
	server = []certv1.KeyUsage{certv1.UsageDigitalSignature, certv1.UsageKeyEncipherment, certv1.UsageServerAuth}
)

func TestPermitted(t *testing.T) {
	const kubelet, serving, user = certv1.KubeAPIServerClientKubeletSignerName, certv1.KubeletServingSignerName, certv1.KubeAPIServerClientSignerName
	for _, row := range []struct {
		name, signer, cn string
		orgs             []string
		dns              []string
		usages           []certv1.KeyUsage
		ok               bool
	}{
		{"a node's client", kubelet, "system:node:a", nodes, nil, client, true},
		{"that is no node", kubelet, "a", nodes, nil, client, false},
		{"in more groups", kubelet, "system:node:a", []string{"system:nodes", "system:masters"}, nil, client, false},
		{"with names", kubelet, "system:node:a", nodes, []string{"x"}, client, false},
		{"as a server", kubelet, "system:node:a", nodes, nil, server, false},
		{"a node's server", serving, "system:node:a", nodes, []string{"a"}, server, true},
		{"without names", serving, "system:node:a", nodes, nil, server, false},
		{"anybody's client", user, "jane", nil, nil, client, true},
		{"as a server", user, "jane", nil, nil, server, false},
	} {
		r, err := csr.Parse(request(t, row.cn, row.orgs, row.dns...))
		if err != nil {
			t.Fatal(err)
		}
		if err := csr.Permitted(row.signer, r, row.usages); (err == nil) != row.ok {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

func TestSignedCertificatesAreWhatWasAsked(t *testing.T) {
	now := time.Now()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	r, err := csr.Parse(request(t, "jane", []string{"dev"}))
	if err != nil {
		t.Fatal(err)
	}
	out, err := (&csr.Authority{Cert: ca, Key: key}).Sign(r, client, new(int32(3600)), now)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(out)
	got, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	if _, err := got.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if got.IsCA || got.Subject.CommonName != "jane" || got.NotAfter.Sub(now).Round(time.Minute) != time.Hour {
		t.Errorf("signed %v until %v, CA %v", got.Subject, got.NotAfter, got.IsCA)
	}
}

func TestPermissionIsForNodesOnly(t *testing.T) {
	ask := func(user, signer string) int {
		c := &certv1.CertificateSigningRequest{Spec: certv1.CertificateSigningRequestSpec{Username: user, SignerName: signer, Usages: client}}
		r, err := csr.Parse(request(t, "system:node:a", nodes))
		if err != nil {
			t.Fatal(err)
		}
		return len(csr.Permission(c, r))
	}
	if ask("system:node:a", certv1.KubeAPIServerClientKubeletSignerName) != 2 || ask("system:bootstrap:x", certv1.KubeAPIServerClientKubeletSignerName) != 1 ||
		ask("system:node:a", certv1.KubeAPIServerClientSignerName) != 0 {
		t.Error("the wrong rights are asked for")
	}
}

func TestExpires(t *testing.T) {
	made := time.Unix(10000, 0)
	c := func(cert string, kinds ...certv1.RequestConditionType) time.Duration {
		r := &certv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(made)}}
		r.Status.Certificate = []byte(cert)
		for _, k := range kinds {
			r.Status.Conditions = append(r.Status.Conditions, certv1.CertificateSigningRequestCondition{Type: k, Status: corev1.ConditionTrue, LastUpdateTime: metav1.NewTime(made)})
		}
		return csr.Expires(r).Sub(made)
	}
	if c("") != 24*time.Hour || c("", certv1.CertificateApproved) != 24*time.Hour || c("x", certv1.CertificateApproved) != time.Hour || c("", certv1.CertificateDenied) != time.Hour {
		t.Error("requests are kept for the wrong time")
	}
}
