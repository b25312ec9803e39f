package volume_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skein.dev/skein/kubelet/volume"
)

// signer signs what it is asked for, or answers as told.
type signer struct {
	bundles []certificatesv1.ClusterTrustBundle
	answer  string // Issued by default; "" with silent
	silent  bool
	asked   []*certificatesv1.PodCertificateRequest
	life    time.Duration
}

func (s *signer) TrustBundle(_ context.Context, name string) (*certificatesv1.ClusterTrustBundle, error) {
	for i := range s.bundles {
		if s.bundles[i].Name == name {
			return &s.bundles[i], nil
		}
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "clustertrustbundles"}, name)
}

func (s *signer) TrustBundles(context.Context) ([]certificatesv1.ClusterTrustBundle, error) {
	return s.bundles, nil
}

func (s *signer) Request(_ context.Context, pod *corev1.Pod, p *corev1.PodCertificateProjection, request []byte) (string, error) {
	r := &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: fmt.Sprintf("req-%d", len(s.asked))},
		Spec:       certificatesv1.PodCertificateRequestSpec{SignerName: p.SignerName, StubPKCS10Request: request},
	}
	s.asked = append(s.asked, r)
	return r.Name, nil
}

func (s *signer) Requested(_ context.Context, _, name string) (*certificatesv1.PodCertificateRequest, error) {
	for _, r := range s.asked {
		if r.Name == name && (s.silent || len(r.Status.Conditions) > 0) {
			return r, nil
		}
		if r.Name == name {
			return r, s.sign(r)
		}
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "podcertificaterequests"}, name)
}

func (s *signer) sign(r *certificatesv1.PodCertificateRequest) error {
	kind := certificatesv1.PodCertificateRequestConditionTypeIssued
	if s.answer != "" {
		kind = s.answer
	}
	r.Status.Conditions = []metav1.Condition{{Type: kind, Status: metav1.ConditionTrue, Reason: "Because", Message: "so"}}
	csr, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request)
	if err != nil {
		return err
	}
	if err := csr.CheckSignature(); err != nil {
		return err
	}
	ca, caKey := authority()
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(s.life), Subject: pkix.Name{CommonName: r.Name}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, csr.PublicKey, caKey)
	if err != nil {
		return err
	}
	refresh := metav1.NewTime(time.Now().Add(s.life / 2))
	r.Status.BeginRefreshAt = &refresh
	r.Status.CertificateChain = "a comment\n" + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Headers: map[string]string{"x": "y"}, Bytes: der}))
	return nil
}

func certPod(keyType string) *corev1.Pod {
	return pod(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{
		PodCertificate: &corev1.PodCertificateProjection{
			SignerName: "example.com/s", KeyType: keyType, CredentialBundlePath: "all.pem", KeyPath: "key.pem", CertificateChainPath: "chain.pem",
		},
	}}}})
}

func TestAPodGetsACertificateOfAKeyThatStaysHereAndARenewedOne(t *testing.T) {
	for _, kind := range []string{"ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &signer{life: 10 * time.Hour}
				set, err := volume.New(volume.Config{Root: t.TempDir(), Objects: &cluster{}, Certificates: s})
				if err != nil {
					t.Fatal(err)
				}
				p := certPod(kind)
				read := func() (tls.Certificate, time.Time) {
					t.Helper()
					places, next, err := set.Ensure(t.Context(), p)
					if err != nil {
						t.Fatal(err)
					}
					file := func(name string) []byte {
						b, err := os.ReadFile(filepath.Join(places["v"].Host, name))
						if err != nil {
							t.Fatal(err)
						}
						return b
					}
					all := file("all.pem")
					if !bytes.Equal(all, append(file("key.pem"), file("chain.pem")...)) || bytes.Contains(all, []byte("comment")) || bytes.Contains(all, []byte("x: y")) {
						t.Errorf("bundle %s", all)
					}
					c, err := tls.X509KeyPair(all, all)
					if err != nil {
						t.Fatal(err)
					}
					return c, next
				}
				first, next := read()
				if until := time.Until(next); until < 5*time.Hour || until > 5*time.Hour+5*time.Minute {
					t.Errorf("renewed in %s", until)
				}
				if again, _ := read(); !bytes.Equal(again.Certificate[0], first.Certificate[0]) || len(s.asked) != 1 {
					t.Errorf("asked %d times for one certificate", len(s.asked))
				}
				time.Sleep(time.Until(next))
				// While the signer is silent the old one serves.
				s.silent = true
				if again, next := read(); !bytes.Equal(again.Certificate[0], first.Certificate[0]) || time.Until(next) > time.Minute {
					t.Errorf("next look in %s", time.Until(next))
				}
				s.silent = false
				if again, _ := read(); bytes.Equal(again.Certificate[0], first.Certificate[0]) || len(s.asked) != 2 {
					t.Errorf("not renewed; asked %d times", len(s.asked))
				}
			})
		})
	}
}

func TestAPodWaitsForItsSignerAndHearsOfARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &signer{life: time.Hour, silent: true}
		set, err := volume.New(volume.Config{Root: t.TempDir(), Objects: &cluster{}, Certificates: s})
		if err != nil {
			t.Fatal(err)
		}
		p := certPod("ED25519")
		if _, _, err := set.Ensure(t.Context(), p); err == nil || !strings.Contains(err.Error(), "has not answered request req-0") {
			t.Errorf("silent signer: %v", err)
		}
		s.silent, s.answer = false, certificatesv1.PodCertificateRequestConditionTypeDenied
		for range 2 {
			if _, _, err := set.Ensure(t.Context(), p); err == nil || !strings.Contains(err.Error(), `ns/req-0 was denied, reason="Because", message="so"`) {
				t.Errorf("refusal: %v", err)
			}
		}
		if len(s.asked) != 1 {
			t.Errorf("asked %d times", len(s.asked))
		}
	})
}

func TestTrustBundlesAreChosenByNameOrBySignerAndLabels(t *testing.T) {
	block := func(s string) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(s)}))
	}
	bundle := func(name, signer, label string, certs ...string) certificatesv1.ClusterTrustBundle {
		b := certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"l": label}}}
		b.Spec.SignerName = signer
		for _, c := range certs {
			b.Spec.TrustBundle += "words\n" + block(c)
		}
		return b
	}
	s := &signer{bundles: []certificatesv1.ClusterTrustBundle{
		bundle("one", "", "", "A"), bundle("s:1", "s/s", "x", "B", "C"), bundle("s:2", "s/s", "y", "C", "D"), bundle("t:1", "t/t", "x", "E"),
	}}
	signerName, other, one, none, yes := "s/s", "u/u", "one", "none", true
	for _, c := range []struct {
		rule string
		p    corev1.ClusterTrustBundleProjection
		want []string
		err  string
	}{
		{rule: "by name", p: corev1.ClusterTrustBundleProjection{Name: &one}, want: []string{"A"}},
		{rule: "a name that is not there", p: corev1.ClusterTrustBundleProjection{Name: &none}, err: "not found"},
		{rule: "a name that need not be there", p: corev1.ClusterTrustBundleProjection{Name: &none, Optional: &yes}, want: []string{}},
		{rule: "all of a signer, each anchor once", p: corev1.ClusterTrustBundleProjection{SignerName: &signerName, LabelSelector: &metav1.LabelSelector{}}, want: []string{"B", "C", "D"}},
		{rule: "by labels", p: corev1.ClusterTrustBundleProjection{SignerName: &signerName, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"l": "x"}}}, want: []string{"B", "C"}},
		{rule: "no selector is nothing", p: corev1.ClusterTrustBundleProjection{SignerName: &signerName}, err: "matched zero ClusterTrustBundles"},
		{rule: "a signer without bundles, optional", p: corev1.ClusterTrustBundleProjection{SignerName: &other, LabelSelector: &metav1.LabelSelector{}, Optional: &yes}, want: []string{}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			set, err := volume.New(volume.Config{Root: t.TempDir(), Objects: &cluster{}, Certificates: s})
			if err != nil {
				t.Fatal(err)
			}
			c.p.Path = "anchors.pem"
			places, _, err := set.Ensure(t.Context(), pod(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ClusterTrustBundle: &c.p}},
			}}))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %s", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(places["v"].Host, "anchors.pem"))
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(got), "BEGIN"); n != len(c.want) || strings.Contains(string(got), "words") {
				t.Errorf("%d anchors, want %d:\n%s", n, len(c.want), got)
			}
			for _, w := range c.want {
				if !strings.Contains(string(got), block(w)) {
					t.Errorf("no %s in\n%s", w, got)
				}
			}
		})
	}
}
