package identity_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"

	"skein.dev/skein/api/peerid"
	"skein.dev/skein/identity"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func newKeyring(t *testing.T) *identity.Keyring {
	t.Helper()
	k, err := identity.NewKeyring(now)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func machine() identity.Machine {
	return identity.Machine{
		Name: "n1", ServerID: "srv-1",
		Addresses:  []netip.Addr{netip.MustParseAddr("198.18.0.11"), netip.MustParseAddr("fd00::11")},
		ServiceIPs: []netip.Addr{netip.MustParseAddr("10.96.0.1")},
	}
}

func leaf(t *testing.T, p identity.Pair) *x509.Certificate {
	t.Helper()
	c, err := p.Leaf()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEachUseIsSignedByItsAuthorityAndByNoOther(t *testing.T) {
	k, m := newKeyring(t), machine()
	want := map[identity.Use]identity.Authority{
		identity.UsePeer: identity.Peers, identity.UseAPIServer: identity.Serving,
		identity.UseKubelet: identity.Serving, identity.UseFrontProxy: identity.FrontProxy,
	}
	for _, use := range identity.Uses() {
		p, err := k.Issue(use, m, now)
		if err != nil {
			t.Fatalf("%s: %v", use, err)
		}
		owner := identity.Clients
		if a, ok := want[use]; ok {
			owner = a
		}
		for _, a := range identity.Authorities() {
			_, err := leaf(t, p).Verify(x509.VerifyOptions{
				Roots: k.Pool(a), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
			})
			if (err == nil) != (a == owner) {
				t.Errorf("%s under authority %s: got %v, owner is %s", use, a, err, owner)
			}
		}
	}
}

func TestPeerCertificateNamesTheServerAndServesBothEnds(t *testing.T) {
	k := newKeyring(t)
	p, err := k.Issue(identity.UsePeer, machine(), now)
	if err != nil {
		t.Fatal(err)
	}
	c := leaf(t, p)
	if id, err := peerid.ServerID(c); err != nil || id != "srv-1" {
		t.Errorf("server id: got %q, %v", id, err)
	}
	for _, u := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		if _, err := c.Verify(x509.VerifyOptions{Roots: k.Pool(identity.Peers), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{u}}); err != nil {
			t.Errorf("usage %v: %v", u, err)
		}
	}
	if !c.NotBefore.Before(now) || c.NotAfter.Before(now.AddDate(0, 11, 0)) {
		t.Errorf("valid from %v to %v", c.NotBefore, c.NotAfter)
	}
}

func TestServingCertificateAnswersToEveryNameOfTheAPI(t *testing.T) {
	k := newKeyring(t)
	p, err := k.Issue(identity.UseAPIServer, machine(), now)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		"localhost", "n1", "127.0.0.1", "::1", "198.18.0.11", "fd00::11", "10.96.0.1",
	} {
		if err := leaf(t, p).VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	if err := leaf(t, p).VerifyHostname("10.96.0.2"); err == nil {
		t.Error("answers to a name it does not have")
	}
}

func TestClientCertificatesNameKubernetesUsers(t *testing.T) {
	k := newKeyring(t)
	type subject struct {
		CN string
		O  []string
	}
	want := map[identity.Use]subject{
		identity.UseAdmin:       {"kubernetes-admin", []string{"system:masters"}},
		identity.UseNode:        {"system:node:n1", []string{"system:nodes"}},
		identity.UseScheduler:   {"system:kube-scheduler", nil},
		identity.UseControllers: {"system:kube-controller-manager", nil},
	}
	for use, w := range want {
		p, err := k.Issue(use, machine(), now)
		if err != nil {
			t.Fatal(err)
		}
		c := leaf(t, p)
		if d := cmp.Diff(w, subject{c.Subject.CommonName, c.Subject.Organization}); d != "" {
			t.Errorf("%s (-want +got):\n%s", use, d)
		}
		if slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
			t.Errorf("%s can serve", use)
		}
	}
}

func TestKeyringDirectoryIsPrivateWholeAndMadeOnce(t *testing.T) {
	k := newKeyring(t)
	d := identity.Dir(filepath.Join(t.TempDir(), "pki"))
	if _, err := d.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("load of nothing: %v", err)
	}
	if err := d.Create(k); err != nil {
		t.Fatal(err)
	}
	if err := d.Create(k); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second create: %v", err)
	}
	got, err := d.Load()
	if err != nil {
		t.Fatal(err)
	}
	if got.CAHash() != k.CAHash() || got.Cluster != k.Cluster || !got.ServiceAccount.Equal(k.ServiceAccount) {
		t.Error("loaded keyring differs")
	}
	if d := cmp.Diff(k.Sealing, got.Sealing); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(k.Gossip, got.Gossip); d != "" {
		t.Error(d)
	}
	err = filepath.WalkDir(string(d), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if e.IsDir() {
			want = 0o700
		}
		if i, err := e.Info(); err != nil || i.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v (%v)", path, i.Mode().Perm(), want, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(string(d)), "*.new-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestEnsureRenewsOnlyWhatIsDueAndKeepsTheKey(t *testing.T) {
	k, m := newKeyring(t), machine()
	d := identity.Dir(filepath.Join(t.TempDir(), "pki"))
	if err := d.Create(k); err != nil {
		t.Fatal(err)
	}
	first, renewed, err := d.Ensure(k, m, now)
	if err != nil || len(renewed) != len(identity.Uses()) {
		t.Fatalf("first: %v, %v", renewed, err)
	}
	if _, renewed, err = d.Ensure(k, m, now.AddDate(0, 7, 0)); err != nil || len(renewed) != 0 {
		t.Errorf("young certificates: renewed %v, %v", renewed, err)
	}
	moved := m
	moved.Addresses = []netip.Addr{netip.MustParseAddr("198.18.0.99")}
	if _, renewed, err = d.Ensure(k, moved, now); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]identity.Use{identity.UseAPIServer, identity.UseKubelet}, renewed); diff != "" {
		t.Errorf("moved machine (-want +got):\n%s", diff)
	}
	last, renewed, err := d.Ensure(k, m, now.AddDate(0, 9, 0))
	if err != nil || len(renewed) != len(identity.Uses()) {
		t.Fatalf("old certificates: renewed %v, %v", renewed, err)
	}
	a, _ := first[identity.UsePeer].Fingerprint()
	b, _ := last[identity.UsePeer].Fingerprint()
	if a != b || a == "" {
		t.Errorf("fingerprint changed from %s to %s", a, b)
	}
	if slices.Equal(first[identity.UsePeer].Chain, last[identity.UsePeer].Chain) {
		t.Error("certificate was not renewed")
	}
	if _, err := tls.LoadX509KeyPair(d.Path(identity.UseAPIServer), d.Path(identity.UseAPIServer)); err != nil {
		t.Errorf("one file for certificate and key: %v", err)
	}
}

func TestDamagedKeyringIsRefused(t *testing.T) {
	k := newKeyring(t)
	d := identity.Dir(filepath.Join(t.TempDir(), "pki"))
	if err := d.Create(k); err != nil {
		t.Fatal(err)
	}
	other := newKeyring(t)
	od := identity.Dir(filepath.Join(t.TempDir(), "pki"))
	if err := od.Create(other); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(string(d), "ca-peers.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(string(d), "ca-peers.pem"), good[:len(good)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Load(); err == nil {
		t.Error("a truncated authority was accepted")
	}
	if err := os.WriteFile(filepath.Join(string(od), "secrets.json"), []byte(`{"gossip":["AAAA"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := od.Load(); err == nil {
		t.Error("a short gossip key was accepted")
	}
}

func TestKubeconfigHoldsOneContextAPeerAndKubectlReadsIt(t *testing.T) {
	k := newKeyring(t)
	admin, err := k.Issue(identity.UseAdmin, machine(), now)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "etc", "kubeconfig.yaml")
	c := identity.Kubeconfig{
		CA: k.CAPEM(identity.Serving), User: "admin", Client: admin, Current: "n2",
		Endpoints: []identity.Endpoint{
			{Name: "n1", Server: "https://127.0.0.1:16443"}, {Name: "n2", Server: "https://127.0.0.1:26443", TLSName: "kubernetes"},
		},
	}
	if err := c.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := clientcmd.LoadFromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.CurrentContext != "n2" || len(got.Contexts) != 2 || got.Clusters["n2"].TLSServerName != "kubernetes" {
		t.Errorf("got %+v", got)
	}
	if _, err := clientcmd.NewDefaultClientConfig(*got, nil).ClientConfig(); err != nil {
		t.Error(err)
	}
	c.Current = "n9"
	if err := c.Write(path); err == nil {
		t.Error("a context that does not exist was accepted")
	}
}
