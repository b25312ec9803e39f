package daemon

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/api/member/membertest"
	"skein.dev/skein/apiserver/storage/memstore"
	"skein.dev/skein/identity"
	"skein.dev/skein/tests/realapi"
)

// FuzzJoin posts any bytes to where joiners are admitted; TOKEN in them stands
// for a token that is good. The answer is a decision; nobody is let in without
// the token, and who is let in has a record and no authority.
func FuzzJoin(f *testing.F) {
	api := realapi.Serve(f, realapi.Config{})
	keyring, err := identity.NewKeyring(time.Now())
	if err != nil {
		f.Fatal(err)
	}
	peers, err := newPeerClient(api.User("kubernetes-admin", "system:masters"))
	if err != nil {
		f.Fatal(err)
	}
	token, err := keyring.NewToken()
	if err != nil {
		f.Fatal(err)
	}
	if _, err := api.Admin.CoreV1().Secrets(identity.TokenNamespace).Create(f.Context(), identity.TokenSecret(token, time.Hour, time.Now()), metav1.CreateOptions{}); err != nil {
		f.Fatal(err)
	}
	_, requests, err := identity.Requests("p")
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(identity.JoinRequest{
		Token: "TOKEN", Name: "p", ServerID: "s", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.2")}, Port: 6443, Zone: "z", Requests: requests,
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	for _, change := range [][2]string{
		{`"zone":"z"`, `"zone":"not a label"`},
		{`"serverID":"s"`, `"serverID":"\u0000/.."`},
		{`"127.0.0.2"`, `"fe80::1%eth0"`},
		{`"name":"p"`, `"name":"P"`},
		{`6443`, `65536`},
		{`"zone":"z"`, `"apiOnly":true,"declines":["scheduler",""]`},
		{"TOKEN", goodLookingToken},
	} {
		f.Add(bytes.ReplaceAll(good, []byte(change[0]), []byte(change[1])))
	}
	f.Add([]byte(`{"token":"TOKEN"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		s := &joinServer{
			keyring: keyring, store: memstore.New(), client: api.Admin, peers: peers, members: &membertest.View{}, log: slog.New(slog.DiscardHandler),
			settings: settings{
				ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}, ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
				ClusterDomain: "cluster.local",
			},
		}
		invited := bytes.Contains(body, []byte("TOKEN"))
		body = bytes.ReplaceAll(body, []byte("TOKEN"), []byte(token.String()))
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, identity.JoinPath, bytes.NewReader(body)))
		if w.Code >= http.StatusInternalServerError {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		known, err := peers.List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range known.Items {
			if err := peers.Delete(t.Context(), p.Name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if w.Code != http.StatusOK {
			if len(known.Items) > 0 {
				t.Fatalf("refused with %d %s, but recorded as %+v", w.Code, w.Body, known.Items[0].Spec)
			}
			return
		}
		var reply identity.JoinReply
		if err := json.Unmarshal(w.Body.Bytes(), &reply); err != nil {
			t.Fatal(err)
		}
		if !invited || len(known.Items) != 1 {
			t.Fatalf("let in, invited: %t, %d records", invited, len(known.Items))
		}
		for use, chain := range reply.Bundle.Certificates {
			leaf, err := identity.Pair{Chain: chain}.Leaf()
			if err != nil || leaf.IsCA || leaf.KeyUsage&x509.KeyUsageCertSign != 0 {
				t.Fatalf("certificate for %s: %v, %+v", use, err, leaf)
			}
		}
	})
}

const goodLookingToken = "skein1.abcdef.0123456789abcdef.e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
