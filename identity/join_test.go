package identity_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"skein.dev/skein/api/peerid"
	"skein.dev/skein/identity"
)

func newToken(t *testing.T, k *identity.Keyring) identity.Token {
	t.Helper()
	tok, err := k.NewToken()
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestTokenSurvivesBeingPassedOn(t *testing.T) {
	k := newKeyring(t)
	tok := newToken(t, k)
	got, err := identity.ParseToken("  " + tok.String() + "\n")
	if err != nil || got != tok {
		t.Fatalf("got %v, %v", got, err)
	}
	if err := k.CheckCluster(got); err != nil {
		t.Error(err)
	}
	if err := newKeyring(t).CheckCluster(got); !errors.Is(err, identity.ErrTokenOtherCluster) {
		t.Errorf("other cluster: %v", err)
	}
}

func TestMalformedTokenIsExplainedInOneLineWithoutItsSecret(t *testing.T) {
	good := newToken(t, newKeyring(t))
	rows := map[string]struct{ in, want string }{
		"empty":          {"", "empty"},
		"other prefix":   {"K10abc::server:x", "begin with skein1"},
		"missing parts":  {"skein1." + good.ID + "." + good.Secret, "3 parts"},
		"short id":       {"skein1.abc." + good.Secret + "." + good.CAHash, "id"},
		"upper secret":   {"skein1." + good.ID + "." + strings.ToUpper("z"+good.Secret[1:]) + "." + good.CAHash, "secret"},
		"cut-off hash":   {good.String()[:len(good.String())-5], "cut off"},
		"hash of no hex": {good.String()[:len(good.String())-2] + "zz", "hash"},
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			_, err := identity.ParseToken(r.in)
			if !errors.Is(err, identity.ErrTokenMalformed) {
				t.Fatalf("got %v", err)
			}
			if s := err.Error(); !strings.Contains(s, r.want) || strings.Contains(s, "\n") || strings.Contains(s, good.Secret) {
				t.Errorf("got %q, want one line with %q and no secret", s, r.want)
			}
		})
	}
}

func TestTokenIsRefusedForTheRightReason(t *testing.T) {
	k := newKeyring(t)
	tok := newToken(t, k)
	s := identity.TokenSecret(tok, time.Hour, now)
	wrong, other := tok, tok
	wrong.Secret = "aaaaaaaaaaaaaaaa"
	other.CAHash = newKeyring(t).CAHash()
	noSecret := tok
	noSecret.Secret = ""
	rows := map[string]struct {
		presented identity.Token
		at        time.Time
		want      error
	}{
		"good":             {tok, now, nil},
		"last moment":      {tok, now.Add(time.Hour - time.Second), nil},
		"expired":          {tok, now.Add(time.Hour), identity.ErrTokenExpired},
		"wrong secret":     {wrong, now, identity.ErrTokenWrong},
		"no secret":        {noSecret, now, identity.ErrTokenWrong},
		"of another":       {other, now, identity.ErrTokenOtherCluster},
		"wrong, and later": {wrong, now.Add(2 * time.Hour), identity.ErrTokenWrong},
	}
	for name, r := range rows {
		if err := identity.VerifyTokenSecret(s, r.presented, r.at); !errors.Is(err, r.want) {
			t.Errorf("%s: got %v, want %v", name, err, r.want)
		}
	}
	if err := identity.VerifyTokenSecret(nil, tok, now); !errors.Is(err, identity.ErrTokenWrong) {
		t.Errorf("no such token: %v", err)
	}
	forever := identity.TokenSecret(tok, 0, now)
	if err := identity.VerifyTokenSecret(forever, tok, now.AddDate(50, 0, 0)); err != nil {
		t.Errorf("token without end: %v", err)
	}
	if s.Name != "bootstrap-token-"+tok.ID || s.Namespace != "kube-system" {
		t.Errorf("secret is %s/%s", s.Namespace, s.Name)
	}
}

func TestJoinerGetsWorkingCertificatesAndTheWholeKeyring(t *testing.T) {
	k := newKeyring(t)
	keys, requests, err := identity.Requests("n2")
	if err != nil {
		t.Fatal(err)
	}
	m := machine()
	m.Name, m.ServerID = "n2", "srv-2"
	chains, err := k.SignJoin(m, requests, now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := k.Bundle()
	if err != nil {
		t.Fatal(err)
	}
	b.Certificates = chains
	wire, err := json.Marshal(identity.JoinReply{Bundle: b})
	if err != nil {
		t.Fatal(err)
	}
	var got identity.JoinReply
	if err := json.Unmarshal(wire, &got); err != nil {
		t.Fatal(err)
	}
	ring, err := got.Bundle.Keyring()
	if err != nil {
		t.Fatal(err)
	}
	if ring.CAHash() != k.CAHash() || !ring.CAs[identity.Peers].Key.Equal(k.CAs[identity.Peers].Key) {
		t.Error("keyring changed on the way")
	}
	pairs, err := got.Bundle.Pairs(keys)
	if err != nil {
		t.Fatal(err)
	}
	if len(pairs) != len(identity.JoinUses()) {
		t.Errorf("got %d certificates", len(pairs))
	}
	if id, err := peerid.ServerID(leaf(t, pairs[identity.UsePeer])); err != nil || id != "srv-2" {
		t.Errorf("server id %q, %v", id, err)
	}
	got.Bundle.Gossip = nil
	if _, err := got.Bundle.Keyring(); err == nil {
		t.Error("a bundle without gossip key was accepted")
	}
}

func TestSigningRefusesWhatAJoinerMayNotHave(t *testing.T) {
	k := newKeyring(t)
	_, requests, err := identity.Requests("n2")
	if err != nil {
		t.Fatal(err)
	}
	bad := machine()
	bad.Name = "Not A Name"
	if _, err := k.SignJoin(bad, requests, now); err == nil {
		t.Error("a bad name was signed")
	}
	admin := map[identity.Use][]byte{identity.UsePeer: requests[identity.UsePeer], identity.UseAdmin: requests[identity.UseNode]}
	if _, err := k.SignJoin(machine(), admin, now); err == nil {
		t.Error("an admin certificate was signed")
	}
	if _, err := k.SignJoin(machine(), map[identity.Use][]byte{identity.UsePeer: []byte("junk")}, now); err == nil {
		t.Error("junk was signed")
	}
	if _, err := k.SignJoin(machine(), nil, now); err == nil {
		t.Error("an empty request was signed")
	}
}
