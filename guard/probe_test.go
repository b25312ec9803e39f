package guard_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skein.dev/skein/guard"
)

// mesh is a CA and what it issued.
type mesh struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newMesh(t *testing.T) mesh {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "peers"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return mesh{cert, key}
}

// issue makes a peer's certificate that is valid until then.
func (m mesh) issue(t *testing.T, until time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"peer"}, NotBefore: until.Add(-time.Hour), NotAfter: until,
	}, m.cert, key.Public(), m.key)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (m mesh) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(m.cert)
	return p
}

// install writes the files that the guard of b reads.
func (m mesh) install(t *testing.T, b *bench) {
	t.Helper()
	c := m.issue(t, time.Now().Add(time.Hour))
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	must(t, err)
	write := func(path, kind string, der []byte) {
		must(t, os.WriteFile(path+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		must(t, os.Rename(path+".new", path))
	}
	write(b.cfg.Pool, "CERTIFICATE", m.cert.Raw)
	write(b.cfg.Key, "PRIVATE KEY", key)
	write(b.cfg.Cert, "CERTIFICATE", c.Certificate[0])
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

func TestAPeerLearnsThatTheMachineLivesThoughItsDaemonIsDead(t *testing.T) {
	b, m := newBench(t), newMesh(t)
	b.cfg.Listen = freePort(t)
	b.cfg.Incarnation = filepath.Join(b.dir, "incarnation")
	must(t, os.WriteFile(b.cfg.Incarnation, []byte("7"), 0o600))
	b.cfg.Engine, b.cfg.Daemon.Env = nil, []string{"BEHAVE=crash"}
	m.install(t, b)
	cmd := b.spawn(t)
	t.Cleanup(func() {
		_, err := b.ask(guard.StopAll)
		must(t, err)
		must(t, cmd.Wait())
	})
	b.until(t, "daemon is crashing", func(r guard.Report) bool { return r.Daemon == guard.Crashing })
	conf := &tls.Config{RootCAs: m.pool(), ServerName: "peer", Certificates: []tls.Certificate{m.issue(t, time.Now().Add(time.Hour))}}
	st, err := guard.Probe(t.Context(), b.cfg.Listen, conf)
	must(t, err)
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	must(t, err)
	if st.Daemon != guard.Crashing || st.BootID != strings.TrimSpace(string(boot)) || st.Incarnation != "7" || st.Since.IsZero() {
		t.Errorf("got %+v, want a crashing daemon of incarnation 7 on boot %s", st, boot)
	}
}

func TestOnlyPeersAreAnswered(t *testing.T) {
	b, m, other := newBench(t), newMesh(t), newMesh(t)
	b.cfg.Listen = freePort(t)
	m.install(t, b)
	b.start(t)
	now := time.Now()
	for name, row := range map[string]struct {
		certs []tls.Certificate
		ok    bool
	}{
		"peer":                     {[]tls.Certificate{m.issue(t, now.Add(time.Hour))}, true},
		"peer expired by an hour":  {[]tls.Certificate{m.issue(t, now.Add(-time.Hour))}, true},
		"nobody":                   {nil, false},
		"peer of another mesh":     {[]tls.Certificate{other.issue(t, now.Add(time.Hour))}, false},
		"peer of another, expired": {[]tls.Certificate{other.issue(t, now.Add(-time.Hour))}, false},
	} {
		t.Run(name, func(t *testing.T) {
			conf := &tls.Config{RootCAs: m.pool(), ServerName: "peer", Certificates: row.certs}
			_, err := guard.Probe(t.Context(), b.cfg.Listen, conf)
			if (err == nil) != row.ok {
				t.Errorf("got error %v, want an answer: %t", err, row.ok)
			}
		})
	}
}

func TestTheGuardTakesKeysThatAppearAndChangeWhileItRuns(t *testing.T) {
	b := newBench(t)
	b.cfg.Listen = freePort(t)
	b.start(t)
	for range 2 {
		m := newMesh(t)
		conf := &tls.Config{RootCAs: m.pool(), ServerName: "peer", Certificates: []tls.Certificate{m.issue(t, time.Now().Add(time.Hour))}}
		if _, err := guard.Probe(t.Context(), b.cfg.Listen, conf); err == nil {
			t.Error("answered before it had keys of this mesh")
		}
		m.install(t, b)
		if _, err := guard.Probe(t.Context(), b.cfg.Listen, conf); err != nil {
			t.Errorf("with new keys: %v", err)
		}
	}
}

func TestAProbeEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	must(t, err)
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := guard.Probe(ctx, l.Addr().String(), &tls.Config{ServerName: "peer", MinVersion: tls.VersionTLS13}); err == nil {
		t.Error("a silent listener was taken for a guard")
	}
}
