package apiserver_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"skein.dev/skein/apiserver"
	"skein.dev/skein/apiserver/kinds"
	"skein.dev/skein/apiserver/storage/memstore"
)

// fixture is a server on a memory store, served on a loopback port.
type fixture struct {
	*apiserver.Server

	store *memstore.Store
	addr  string
	ca    *authority
	key   *ecdsa.PrivateKey
	stop  context.CancelFunc
}

// authority signs the certificates of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	key := newKey(tb)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return &authority{cert: cert, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// issue signs a certificate; without a name it is a server's.
func (a *authority) issue(tb testing.TB, name string, groups ...string) (certPEM, keyPEM []byte) {
	tb.Helper()
	key := newKey(tb)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name, Organization: groups},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if name == "" {
		tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		tmpl.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		tb.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func start(tb testing.TB, change ...func(*apiserver.Config)) *fixture {
	tb.Helper()
	f := &fixture{store: memstore.New(), ca: newAuthority(tb), key: newKey(tb)}
	certPEM, keyPEM := f.ca.issue(tb, "")
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		tb.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	f.addr = ln.Addr().String()
	cfg := apiserver.Config{
		Peer: "a", Store: f.store, Kinds: kinds.All(), Listener: ln,
		TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, ClientCAs: f.ca.pool(),
		ServiceAccountKey: f.key,
		Sealing:           []apiserver.SealingKey{{ID: "k1", Key: make([]byte, 32)}},
		ServiceCIDRs:      []netip.Prefix{netip.MustParsePrefix("10.96.0.0/24")},
		Endpoints:         func() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:6443")} },
		Log:               slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, c := range change {
		c(&cfg)
	}
	if f.Server, err = apiserver.New(cfg); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("Run: %v", err)
		}
	})
	f.ready(tb)
	return f
}

func (f *fixture) ready(tb testing.TB) {
	tb.Helper()
	client := f.client(tb, f.admin(tb))
	deadline := time.Now().Add(30 * time.Second)
	for {
		out, err := client.RESTClient().Get().AbsPath("/readyz").Param("verbose", "").DoRaw(tb.Context())
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("not ready: %v\n%s", err, out)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (f *fixture) user(tb testing.TB, name string, groups ...string) *rest.Config {
	tb.Helper()
	certPEM, keyPEM := f.ca.issue(tb, name, groups...)
	return &rest.Config{
		Host: "https://" + f.addr, QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: f.ca.pem, CertData: certPEM, KeyData: keyPEM},
	}
}

func (f *fixture) admin(tb testing.TB) *rest.Config {
	tb.Helper()
	return f.user(tb, "kubernetes-admin", "system:masters")
}

func (f *fixture) client(tb testing.TB, cfg *rest.Config) *kubernetes.Clientset {
	tb.Helper()
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}
