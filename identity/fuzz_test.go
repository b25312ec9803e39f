package identity_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"skein.dev/skein/api/member"
	"skein.dev/skein/identity"
)

const goodToken = "skein1.abcdef.0123456789abcdef.e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// FuzzToken reads token strings: what is accepted is written as it was read,
// and no error repeats the secret.
func FuzzToken(f *testing.F) {
	for _, s := range []string{goodToken, "", "skein1....", " " + goodToken + "\n", strings.ToUpper(goodToken), "skein2.a.b.c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		token, err := identity.ParseToken(s)
		if err != nil {
			if parts := strings.Split(s, "."); len(parts) == 4 && len(parts[2]) == 16 && strings.Contains(err.Error(), parts[2]) {
				t.Fatalf("the error repeats the secret: %v", err)
			}
			return
		}
		again, err := identity.ParseToken(token.String())
		if err != nil || again != token {
			t.Fatalf("%q: read as %+v, again as %+v, %v", s, token, again, err)
		}
		if got := token.String(); got != strings.TrimSpace(s) && !strings.EqualFold(got, strings.TrimSpace(s)) {
			t.Fatalf("%q is written as %q", s, got)
		}
	})
}

// FuzzTokenSecret verifies a token against a Secret that anybody with rights
// in kube-system may have written: only the very token is accepted.
func FuzzTokenSecret(f *testing.F) {
	good, err := identity.ParseToken(goodToken)
	if err != nil {
		f.Fatal(err)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for k, v := range identity.TokenSecret(good, time.Hour, now).Data {
		f.Add(k, v)
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		s := identity.TokenSecret(good, time.Hour, now)
		was := string(s.Data[key])
		s.Data[key] = value
		err := identity.VerifyTokenSecret(s, good, now)
		if key == "token-secret" && was != string(value) && err == nil {
			t.Fatalf("accepted with the secret %q", value)
		}
		empty := &corev1.Secret{Data: map[string][]byte{key: value}}
		if identity.VerifyTokenSecret(empty, good, now) == nil {
			t.Fatal("an empty Secret was accepted")
		}
	})
}

// FuzzJoinRequest signs what a joiner sends: only what it should be is signed.
func FuzzJoinRequest(f *testing.F) {
	now := time.Now()
	keyring, err := identity.NewKeyring(now)
	if err != nil {
		f.Fatal(err)
	}
	_, requests, err := identity.Requests("p")
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(identity.JoinRequest{Token: goodToken, Name: "p", ServerID: "s", Port: 6443, Requests: requests})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"requests":{"peer":"LS0t"}}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r identity.JoinRequest
		if json.Unmarshal(data, &r) != nil {
			return
		}
		chains, err := keyring.SignJoin(identity.Machine{Name: r.Name, ServerID: r.ServerID, Addresses: r.Addresses, Domain: "cluster.local"}, r.Requests, now)
		if err != nil {
			return
		}
		for use, chain := range chains {
			leaf, err := identity.Pair{Chain: chain}.Leaf()
			if err != nil {
				t.Fatalf("%s: %v", use, err)
			}
			if leaf.IsCA {
				t.Fatalf("%s: an authority was signed", use)
			}
			if use == identity.UseAdmin && r.Name != member.Name("p") {
				t.Logf("admin certificate of %q", leaf.Subject)
			}
		}
	})
}
