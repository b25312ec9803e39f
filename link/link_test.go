package link_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"skein.dev/skein/api/member"
	"skein.dev/skein/identity"
	"skein.dev/skein/link"
)

func newKeyring(t *testing.T) *identity.Keyring {
	t.Helper()
	k, err := identity.NewKeyring(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func machine(name string) identity.Machine {
	return identity.Machine{
		Name: member.Name(name), ServerID: member.ServerID("srv-" + name),
		Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
	}
}

func credentialsAt(t *testing.T, k *identity.Keyring, name string, at time.Time) link.Credentials {
	t.Helper()
	p, err := k.Issue(identity.UsePeer, machine(name), at)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := p.TLS()
	if err != nil {
		t.Fatal(err)
	}
	return link.Credentials{
		Self:        member.ServerID("srv-" + name),
		Certificate: func() (*tls.Certificate, error) { return &cert, nil },
		Roots:       func() *x509.CertPool { return k.Pool(identity.Peers) },
		Mesh: func() link.Mesh {
			return link.Mesh{Cluster: k.Cluster.ID, Incarnation: k.Cluster.Incarnation}
		},
	}
}

func credentials(t *testing.T, k *identity.Keyring, name string) link.Credentials {
	t.Helper()
	return credentialsAt(t, k, name, time.Now())
}

func open(t *testing.T, cfg link.Config) *link.Port {
	t.Helper()
	cfg.Address = "127.0.0.1:0"
	p, err := link.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return p
}

func dialer(t *testing.T, c link.Credentials) *link.Dialer {
	t.Helper()
	d, err := link.NewDialer(c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// serveAPI answers "ok" over TLS the way the API server does: tls.NewListener on the API listener.
func serveAPI(t *testing.T, p *link.Port, k *identity.Keyring) {
	t.Helper()
	pair, err := k.Issue(identity.UseAPIServer, machine("a"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pair.TLS()
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/refuse" {
				w.WriteHeader(http.StatusForbidden)
				_, _ = io.WriteString(w, `{"message":"token has expired","hint":"make a new one"}`)
				return
			}
			body, _ := io.ReadAll(r.Body)
			_, _ = w.Write(body)
		}),
		ErrorLog: nil,
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}, ClientAuth: tls.RequestClientCert}
	go srv.Serve(tls.NewListener(p.API(), cfg)) //nolint:errcheck // ends with the port
	t.Cleanup(func() { srv.Close() })
}

func TestPeersMeetOnTheProtocolTheyNamed(t *testing.T) {
	k := newKeyring(t)
	p := open(t, link.Config{Credentials: credentials(t, k, "a")})
	d := dialer(t, credentials(t, k, "b"))
	for _, proto := range []link.Protocol{link.Raft, link.Peer, link.Gossip} {
		c, err := d.Dial(t.Context(), p.Addr().String(), proto, "srv-a")
		if err != nil {
			t.Fatalf("%s: %v", proto, err)
		}
		if got := c.RemoteServerID(); got != "srv-a" {
			t.Errorf("dialer sees %q", got)
		}
		s, err := p.Listener(proto).Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got := s.(interface{ RemoteServerID() member.ServerID }).RemoteServerID(); got != "srv-b" {
			t.Errorf("%s: acceptor sees %q", proto, got)
		}
		go func() { _, _ = c.Write([]byte("ping")) }()
		buf := make([]byte, 4)
		if _, err := io.ReadFull(s, buf); err != nil || string(buf) != "ping" {
			t.Errorf("%s: read %q, %v", proto, buf, err)
		}
		_ = c.Close()
		_ = s.Close()
	}
}

func TestStrangersAreRefusedWithTheReason(t *testing.T) {
	k := newKeyring(t)
	server := credentials(t, k, "a")
	server.Authorize = func(r link.Remote) error {
		if r.ServerID == "srv-removed" {
			return errors.New("peer was removed")
		}
		return nil
	}
	p := open(t, link.Config{Credentials: server, Protocols: []link.Protocol{link.Raft}})
	addr := p.Addr().String()

	recovered := credentials(t, k, "b")
	recovered.Mesh = func() link.Mesh { return link.Mesh{Cluster: k.Cluster.ID, Incarnation: "later"} }
	rows := map[string]struct {
		creds link.Credentials
		proto link.Protocol
		want  member.ServerID
		is    error
		text  string
	}{
		"removed peer":          {credentials(t, k, "removed"), link.Raft, "srv-a", link.ErrRefused, "peer was removed"},
		"wrong peer wanted":     {credentials(t, k, "b"), link.Raft, "srv-c", link.ErrOtherPeer, "srv-a"},
		"other incarnation":     {recovered, link.Raft, "srv-a", link.ErrOtherMesh, "incarnation"},
		"other cluster":         {credentials(t, newKeyring(t), "b"), link.Raft, "srv-a", nil, "verify certificate"},
		"protocol not served":   {credentials(t, k, "b"), link.Gossip, "srv-a", nil, "handshake"},
		"own name is no defect": {credentials(t, k, "a"), link.Raft, "srv-a", nil, ""},
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			c, err := dialer(t, r.creds).Dial(t.Context(), addr, r.proto, r.want)
			if r.text == "" {
				if err != nil {
					t.Fatal(err)
				}
				_ = c.Close()
				return
			}
			if err == nil {
				t.Fatal("was admitted")
			}
			if r.is != nil && !errors.Is(err, r.is) || !strings.Contains(err.Error(), r.text) {
				t.Errorf("got %v, want %v with %q", err, r.is, r.text)
			}
		})
	}
}

func TestUserCertificateOpensNoPeerLink(t *testing.T) {
	k := newKeyring(t)
	p := open(t, link.Config{Credentials: credentials(t, k, "a")})
	admin, err := k.Issue(identity.UseAdmin, machine("b"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := admin.TLS()
	if err != nil {
		t.Fatal(err)
	}
	c := credentials(t, k, "b")
	c.Certificate = func() (*tls.Certificate, error) { return &cert, nil }
	if _, err := dialer(t, c).Dial(t.Context(), p.Addr().String(), link.Raft, "srv-a"); err == nil {
		t.Fatal("an admin's certificate opened a raft link")
	}
}

func TestExpiredPeerIsAdmittedOnlyByItsKey(t *testing.T) {
	k, err := identity.NewKeyring(time.Now().AddDate(-3, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	old := credentialsAt(t, k, "b", time.Now().AddDate(-2, 0, 0))
	known := credentials(t, k, "a")
	var seen link.Remote
	known.Authorize = func(r link.Remote) error { seen = r; return nil }
	c, err := dialer(t, old).Dial(t.Context(), open(t, link.Config{Credentials: known}).Addr().String(), link.Raft, "srv-a")
	if err != nil {
		t.Fatalf("known key: %v", err)
	}
	_ = c.Close()
	if !seen.Expired || seen.Fingerprint == "" {
		t.Errorf("authorize saw %+v", seen)
	}
	_, err = dialer(t, old).Dial(t.Context(), open(t, link.Config{Credentials: credentials(t, k, "a")}).Addr().String(), link.Raft, "srv-a")
	if !errors.Is(err, link.ErrRefused) || !strings.Contains(err.Error(), "expired") {
		t.Errorf("no record of the key: %v", err)
	}
}

func TestAPIClientsReachTheAPIWhateverTheyOffer(t *testing.T) {
	k := newKeyring(t)
	p := open(t, link.Config{Credentials: credentials(t, k, "a")})
	serveAPI(t, p, k)
	for name, protos := range map[string][]string{"http2": {"h2", "http/1.1"}, "http1": {"http/1.1"}, "nothing": nil} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: k.Pool(identity.Serving), ServerName: "kubernetes", NextProtos: protos}, ForceAttemptHTTP2: name == "http2"}
		resp, err := (&http.Client{Transport: tr}).Post("https://"+p.Addr().String()+"/", "text/plain", strings.NewReader("hello"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		tr.CloseIdleConnections()
		if err != nil || string(body) != "hello" {
			t.Errorf("%s: got %q, %v", name, body, err)
		}
		if want := map[bool]int{true: 2, false: 1}[name == "http2"]; resp.ProtoMajor != want {
			t.Errorf("%s: HTTP/%d", name, resp.ProtoMajor)
		}
	}
	resp, err := http.Get("http://" + p.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if !strings.Contains(string(body), "HTTPS") {
		t.Errorf("plain text client was told %q", body)
	}
}

func TestSilentConnectionsDelayNoPeerAndAreClosed(t *testing.T) {
	k := newKeyring(t)
	p := open(t, link.Config{Credentials: credentials(t, k, "a"), Greetings: 8, Timeout: time.Second})
	var silent []net.Conn
	for range 50 {
		c, err := net.Dial("tcp", p.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	c, err := dialer(t, credentials(t, k, "b")).Dial(t.Context(), p.Addr().String(), link.Raft, "srv-a")
	if err != nil {
		t.Fatalf("a peer behind 50 silent connections: %v", err)
	}
	_ = c.Close()
	for i, s := range silent { // each is closed by the port, the last ones by their time-out
		_ = s.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
			t.Fatalf("silent connection %d: %v", i, err)
		}
	}
}

func TestFullAPIBacklogDelaysNoPeer(t *testing.T) {
	k := newKeyring(t)
	p := open(t, link.Config{Credentials: credentials(t, k, "a")}) // nobody accepts from API()
	hello := clientHello(t)
	for range 1100 {
		c, err := net.Dial("tcp", p.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(hello); err != nil {
			t.Fatal(err)
		}
	}
	c, err := dialer(t, credentials(t, k, "b")).Dial(t.Context(), p.Addr().String(), link.Raft, "srv-a")
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func clientHello(t *testing.T) []byte {
	t.Helper()
	a, b := net.Pipe()
	go func() {
		_ = tls.Client(a, &tls.Config{ServerName: "x", NextProtos: []string{"h2"}}).Handshake()
	}()
	buf := make([]byte, 16<<10)
	n, err := b.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
	return buf[:n]
}

func TestTakenPortIsReportedAsSuch(t *testing.T) {
	k := newKeyring(t)
	p := open(t, link.Config{Credentials: credentials(t, k, "a")})
	_, err := link.Open(t.Context(), link.Config{Address: p.Addr().String(), Credentials: credentials(t, k, "b")})
	if !errors.Is(err, link.ErrPortInUse) {
		t.Errorf("tcp: got %v", err)
	}
	pc, err := link.ListenPacket(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	if _, err := link.ListenPacket(t.Context(), pc.LocalAddr().String()); !errors.Is(err, link.ErrPortInUse) {
		t.Errorf("udp: got %v", err)
	}
}

func TestJoinerTrustsOnlyTheClusterOfItsToken(t *testing.T) {
	k := newKeyring(t)
	p := open(t, link.Config{Credentials: credentials(t, k, "a")})
	serveAPI(t, p, k)
	addr := p.Addr().String()
	in, out := map[string]string{"name": "n2"}, map[string]string{}
	if err := link.Post(t.Context(), addr, k.CAHash(), "/mesh/v1/join", in, &out); err != nil || out["name"] != "n2" {
		t.Errorf("got %v, %v", out, err)
	}
	if err := link.Post(t.Context(), addr, newKeyring(t).CAHash(), "/mesh/v1/join", in, &out); !errors.Is(err, link.ErrPin) {
		t.Errorf("other cluster's token: %v", err)
	}
	var refused *link.RemoteError
	if err := link.Post(t.Context(), addr, k.CAHash(), "/refuse", in, &out); !errors.As(err, &refused) {
		t.Fatalf("refusal: %v", err)
	}
	if refused.Status != http.StatusForbidden || refused.Message != "token has expired" || refused.Hint != "make a new one" {
		t.Errorf("got %+v", refused)
	}
}

func TestClosingThePortEndsItsListeners(t *testing.T) {
	k := newKeyring(t)
	p, err := link.Open(t.Context(), link.Config{Address: "127.0.0.1:0", Credentials: credentials(t, k, "a")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 3)
	go func() { ended <- p.Run(ctx) }()
	for _, l := range []net.Listener{p.API(), p.Listener(link.Raft)} {
		go func() {
			_, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				err = nil
			}
			ended <- err
		}()
	}
	cancel()
	for range 3 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
