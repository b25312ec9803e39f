package clients

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
)

// outsider is all that a peer can be told to ask: an issuer of tokens, a
// server that knows tokens, one that decides, one that changes what is stored,
// and one that takes audit events. Those who ask show who they are by a token.
type outsider struct {
	*httptest.Server

	key *ecdsa.PrivateKey

	mu       sync.Mutex // guards the fields below
	audited  []string   // the URIs of the events it was sent
	askers   map[string]int
	strayers []string // what came without the token
}

const askerToken = "a-peer-of-the-mesh"

func newOutsider(t *testing.T) *outsider {
	t.Helper()
	o := &outsider{askers: map[string]int{}}
	var err error
	if o.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/issuer/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		say(w, map[string]any{"issuer": o.issuer(), "jwks_uri": o.issuer() + "/jwks", "id_token_signing_alg_values_supported": []string{"ES256"}})
	})
	mux.HandleFunc("/issuer/jwks", func(w http.ResponseWriter, _ *http.Request) { say(w, o.jwks(t)) })
	mux.HandleFunc("/tokens", o.asked(o.token))
	mux.HandleFunc("/access", o.asked(o.access))
	mux.HandleFunc("/mutate", o.asked(o.mutate))
	mux.HandleFunc("/audit", o.asked(o.audit))
	o.Server = httptest.NewTLSServer(mux)
	t.Cleanup(o.Close)
	return o
}

func (o *outsider) issuer() string { return o.URL + "/issuer" }

// ca is who signed its certificate.
func (o *outsider) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.Certificate().Raw}))
}

// kubeconfig tells how to ask at a path.
func (o *outsider) kubeconfig(path string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: x, contexts: [{name: x, context: {cluster: x, user: x}}],
clusters: [{name: x, cluster: {server: %q, certificate-authority-data: %s}}], users: [{name: x, user: {token: %s}}]}
`, o.URL+path, base64.StdEncoding.EncodeToString([]byte(o.ca())), askerToken)
}

func say(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who asked has gone
}

// asked notes who asks.
func (o *outsider) asked(answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		path, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "?")
		o.mu.Lock()
		o.askers[path]++
		if r.Header.Get("Authorization") != "Bearer "+askerToken {
			o.strayers = append(o.strayers, r.URL.Path)
		}
		o.mu.Unlock()
		answer(w, r)
	}
}

func (o *outsider) times(path string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.askers[path]
}

// token knows one.
func (o *outsider) token(w http.ResponseWriter, r *http.Request) {
	var review authenticationv1.TokenReview
	_ = json.NewDecoder(r.Body).Decode(&review) // then it knows none
	if review.Spec.Token == "known-to-the-webhook" {
		review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: "webby", Groups: []string{"webs"}}}
	}
	say(w, review)
}

// access lets webby read ConfigMaps, forbids Secrets to everybody who is
// asked about, and has no opinion else.
func (o *outsider) access(w http.ResponseWriter, r *http.Request) {
	var review authorizationv1.SubjectAccessReview
	_ = json.NewDecoder(r.Body).Decode(&review)
	if a := review.Spec.ResourceAttributes; a != nil {
		review.Status.Allowed = review.Spec.User == "webby" && a.Resource == "configmaps" && (a.Verb == "get" || a.Verb == "list")
		review.Status.Denied = a.Resource == "secrets"
	}
	say(w, review)
}

// mutate labels what it is asked about.
func (o *outsider) mutate(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	_ = json.NewDecoder(r.Body).Decode(&review)
	if review.Request == nil {
		http.Error(w, "no request", http.StatusBadRequest)
		return
	}
	kind := admissionv1.PatchTypeJSONPatch
	review.Response = &admissionv1.AdmissionResponse{
		UID: review.Request.UID, Allowed: true, PatchType: &kind, Patch: []byte(`[{"op":"add","path":"/metadata/labels","value":{"seen":"yes"}}]`),
	}
	review.Request = nil
	say(w, review)
}

func (o *outsider) audit(_ http.ResponseWriter, r *http.Request) {
	var list struct {
		Items []struct {
			RequestURI string `json:"requestURI"`
		} `json:"items"`
	}
	_ = json.NewDecoder(r.Body).Decode(&list)
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range list.Items {
		o.audited = append(o.audited, e.RequestURI)
	}
}

func (o *outsider) jwks(t *testing.T) map[string]any {
	t.Helper()
	raw, err := o.key.PublicKey.Bytes()
	if err != nil {
		t.Error(err)
	}
	return map[string]any{"keys": []any{map[string]any{
		"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "1", "x": base64url(raw[1:33]), "y": base64url(raw[33:]),
	}}}
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// sign makes a token of the issuer's for a subject.
func (o *outsider) sign(t *testing.T, subject string, lives time.Duration) string {
	t.Helper()
	claims, err := json.Marshal(map[string]any{
		"iss": o.issuer(), "aud": "the-mesh", "sub": subject, "teams": []string{"herders"},
		"iat": time.Now().Add(-time.Hour).Unix(), "exp": time.Now().Add(lives).Unix(),
	})
	if err != nil {
		t.Fatal(err)
	}
	said := base64url([]byte(`{"alg":"ES256","kid":"1"}`)) + "." + base64url(claims)
	sum := sha256.Sum256([]byte(said))
	a, b, err := ecdsa.Sign(rand.Reader, o.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return said + "." + base64url(append(a.FillBytes(make([]byte, 32)), b.FillBytes(make([]byte, 32))...))
}
