// Package realapi serves the real API server to tests of its clients: over
// TLS, on a store in memory, with every authorizer and admission that a mesh
// has.
//
// Its invariant: a client gets exactly the rights of the user that its
// certificate names; nothing here goes around the request path.
package realapi

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"

	"skein.dev/skein/api/component"
	"skein.dev/skein/api/member"
	"skein.dev/skein/apiserver"
	"skein.dev/skein/apiserver/kinds"
	"skein.dev/skein/apiserver/storage/memstore"
)

// KubeletUser is who the server is to the node API.
const KubeletUser = "system:apiserver-kubelet-client"

// Server is a running API server. Its certificates are for 127.0.0.1 and
// what Config names.
type Server struct {
	// Admin is of the group that may do everything.
	Admin *kubernetes.Clientset

	tb    testing.TB
	host  string
	caPEM []byte
	ca    *x509.Certificate
	key   *ecdsa.PrivateKey

	mu      sync.Mutex // guards the fields below
	refused []string
}

// Config of a [Server]. Its zero value is an API server without nodes.
type Config struct {
	// NodePort is where node APIs are reached; 0 means nowhere.
	NodePort int32
	// Addresses are those of nodes, for the certificates of node APIs.
	Addresses []net.IP
}

// Serve runs a server until the test ends.
func Serve(tb testing.TB, c Config) *Server {
	tb.Helper()
	s := &Server{tb: tb}
	s.caPEM, _ = s.issue("authority", nil, nil)
	ln, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	s.must(err)
	s.host = ln.Addr().String()
	cfg := apiserver.Config{
		Peer: "api", Store: memstore.New(), Kinds: kinds.All(), Listener: ln,
		TLS:       &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{s.Certificate("", c.Addresses)}},
		ClientCAs: s.Pool(), ServiceAccountKey: s.newKey(), Sealing: []apiserver.SealingKey{{ID: "k", Key: make([]byte, 32)}},
	}
	if c.NodePort != 0 {
		own := s.Certificate(KubeletUser, nil)
		cfg.Kubelet = apiserver.Kubelet{
			Port: c.NodePort, TLS: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{own}, RootCAs: s.Pool()},
		}
	}
	server, err := apiserver.New(cfg)
	s.must(err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("API server ended: %v", err)
		}
	})
	s.Admin = s.Client(s.User("kubernetes-admin", "system:masters"))
	Eventually(tb, "the API server is ready", func() bool {
		_, err := s.Admin.RESTClient().Get().AbsPath("/readyz").DoRaw(tb.Context())
		return err == nil
	})
	return s
}

func (s *Server) must(err error) {
	s.tb.Helper()
	if err != nil {
		s.tb.Fatal(err)
	}
}

func (s *Server) newKey() *ecdsa.PrivateKey {
	s.tb.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.must(err)
	return k
}

// issue signs a certificate; the first one is the authority's own.
func (s *Server) issue(name string, groups []string, at []net.IP) (certPEM, keyPEM []byte) {
	s.tb.Helper()
	key := s.newKey()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	s.must(err)
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name, Organization: groups},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		IPAddresses: append([]net.IP{net.IPv4(127, 0, 0, 1)}, at...),
	}
	parent, signer := s.ca, s.key
	if parent == nil {
		tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	s.must(err)
	raw, err := x509.MarshalECPrivateKey(key)
	s.must(err)
	if s.ca == nil {
		s.key = key
		s.ca, err = x509.ParseCertificate(der)
		s.must(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})
}

// Pool has the authority of all certificates.
func (s *Server) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(s.ca)
	return pool
}

// RootPEM is the authority's certificate, as pods get it.
func (s *Server) RootPEM() []byte { return s.caPEM }

// Authority is what signs all certificates, for signers under test.
func (s *Server) Authority() (*x509.Certificate, *ecdsa.PrivateKey) { return s.ca, s.key }

// Certificate is one for name and the addresses.
func (s *Server) Certificate(name string, at []net.IP) tls.Certificate {
	s.tb.Helper()
	c, err := tls.X509KeyPair(s.issue(name, nil, at))
	s.must(err)
	return c
}

// User is the client configuration of a user.
func (s *Server) User(name string, groups ...string) *rest.Config {
	s.tb.Helper()
	certPEM, keyPEM := s.issue(name, groups, nil)
	return &rest.Config{Host: "https://" + s.host, QPS: -1, TLSClientConfig: rest.TLSClientConfig{CAData: s.caPEM, CertData: certPEM, KeyData: keyPEM}}
}

// Client is a clientset for a configuration.
func (s *Server) Client(cfg *rest.Config) *kubernetes.Clientset {
	s.tb.Helper()
	c, err := kubernetes.NewForConfig(cfg)
	s.must(err)
	return c
}

// Kit is what a component gets that runs apart: a client of its own user,
// whose events are sent, and no informers yet. What the API refuses the
// component for lack of rights fails the test, unless [Server.Refused] has
// taken it.
func (s *Server) Kit(peer member.Name, name, user string, groups ...string) component.Kit {
	s.tb.Helper()
	client := s.Client(s.Witnessed(user, groups...))
	b := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.tb.Context()))
	s.must(b.StartRecordingToSinkWithContext(ctx))
	s.tb.Cleanup(func() {
		cancel()
		b.Shutdown()
		for _, r := range s.Refused() {
			s.tb.Errorf("refused: %s", r)
		}
	})
	return component.Kit{Peer: peer, Client: client, Recorder: b.NewRecorder(scheme.Scheme, name)}
}

// Witnessed is the client configuration of a user for whom it is noted what
// is refused.
func (s *Server) Witnessed(user string, groups ...string) *rest.Config {
	s.tb.Helper()
	cfg := s.User(user, groups...)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return &witness{next, s, user} })
	return cfg
}

// Refused returns the requests of kits' clients that were refused for lack
// of rights, and forgets them.
func (s *Server) Refused() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.refused
	s.refused = nil
	return out
}

// witness notes what is refused.
type witness struct {
	next   http.RoundTripper
	server *Server
	user   string
}

// RoundTrip implements http.RoundTripper.
func (w *witness) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := w.next.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if resp.StatusCode == http.StatusForbidden && !bytes.Contains(body, []byte(" cannot ")) {
		return resp, nil // admission refused it, for who it is about and not for who asks
	}
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	w.server.refused = append(w.server.refused, fmt.Sprintf("%s: %s %s: %s", w.user, r.Method, r.URL.RequestURI(), strings.TrimSpace(string(body))))
	return resp, nil
}

// Eventually waits for a state and fails the test if it does not come.
func Eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for range 3000 {
		if ok() {
			return
		}
		select {
		case <-tb.Context().Done():
			tb.Fatal("test ended while waiting: " + what)
		case <-time.After(10 * time.Millisecond):
		}
	}
	tb.Fatal("never came: " + what)
}
