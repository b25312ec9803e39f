package apiserver_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"skein.dev/skein/apiserver"
	"skein.dev/skein/apiserver/kinds"
	"skein.dev/skein/apiserver/storage/memstore"
)

// issuer is an OpenID provider.
type issuer struct {
	*httptest.Server

	signer jose.Signer
	keys   jose.JSONWebKeySet
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key := newKey(t)
	i := &issuer{keys: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "k", Algorithm: "ES256", Use: "sig"}}}}
	var err error
	i.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "k"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys", "id_token_signing_alg_values_supported": []string{"ES256"}})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(i.keys) })
	i.Server = httptest.NewTLSServer(mux)
	t.Cleanup(i.Close)
	return i
}

func serverCA(s *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func (i *issuer) token(t *testing.T, claims map[string]any) string {
	t.Helper()
	all := map[string]any{"iss": i.URL, "aud": "skein", "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(all, claims)
	raw, err := jwt.Signed(i.signer).Claims(all).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// trusting is an AuthenticationConfiguration.
func (i *issuer) trusting(prefix string) string {
	ca := strings.ReplaceAll(strings.TrimSpace(serverCA(i.Server)), "\n", "\n      ")
	return fmt.Sprintf(`
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions: [{path: /readyz}]
jwt:
- issuer:
    url: %s
    audiences: [skein]
    certificateAuthority: |
      %s
  claimValidationRules:
  - expression: claims.staff == true
    message: only staff
  claimMappings:
    username: {expression: '"%s" + claims.sub'}
    groups: {expression: claims.teams}
    extra: [{key: example.com/room, valueExpression: claims.room}]
`, i.URL, ca, prefix)
}

func write(t *testing.T, file, content string) {
	t.Helper()
	// As an editor does it.
	if err := os.WriteFile(file+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// eventually repeats what only time brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 1200 {
		if ok() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("never came: " + what)
}

func TestUsersOfAnIssuerAreKnownByItsTokens(t *testing.T) {
	i := newIssuer(t)
	file := filepath.Join(t.TempDir(), "authentication.yaml")
	write(t, file, i.trusting("oidc:"))
	f := start(t, func(c *apiserver.Config) { c.AuthenticationFile = file })
	claims := map[string]any{"sub": "ann", "teams": []string{"devs"}, "room": "12", "staff": true}
	whoever := func(claims map[string]any) (authenticationv1.UserInfo, error) {
		r, err := f.client(t, bearer(f, i.token(t, claims))).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			return authenticationv1.UserInfo{}, err
		}
		return r.Status.UserInfo, nil
	}
	var who authenticationv1.UserInfo
	eventually(t, "the issuer's keys are known", func() (ok bool) {
		var err error
		who, err = whoever(claims)
		return err == nil
	})
	if who.Username != "oidc:ann" || who.Groups[0] != "devs" || who.Extra["example.com/room"][0] != "12" {
		t.Errorf("got %+v, want what the mappings make of the claims", who)
	}
	if _, err := whoever(map[string]any{"sub": "eve", "teams": []string{}, "room": "1", "staff": false}); !apierrors.IsUnauthorized(err) {
		t.Errorf("a token that breaks a rule: got %v, want 401", err)
	}
	if _, err := whoever(map[string]any{"sub": "ann", "aud": "others"}); !apierrors.IsUnauthorized(err) {
		t.Errorf("a token for others: got %v, want 401", err)
	}
	nobody := f.client(t, &rest.Config{Host: "https://" + f.addr, TLSClientConfig: rest.TLSClientConfig{CAData: f.ca.pem}})
	if err := nobody.RESTClient().Get().AbsPath("/readyz").Do(t.Context()).Error(); err != nil {
		t.Errorf("anonymous where it is allowed: %v", err)
	}
	if err := nobody.RESTClient().Get().AbsPath("/version").Do(t.Context()).Error(); !apierrors.IsUnauthorized(err) {
		t.Errorf("anonymous elsewhere: got %v, want 401", err)
	}
	// What is wrong changes nothing; what is right takes effect.
	write(t, file, "nonsense")
	write(t, file, strings.Replace(i.trusting("staff:"), "conditions: [{path: /readyz}]", "", 1))
	eventually(t, "the new configuration is taken", func() bool {
		who, err := whoever(claims)
		return err == nil && who.Username == "staff:ann"
	})
	if err := nobody.RESTClient().Get().AbsPath("/version").Do(t.Context()).Error(); err != nil {
		t.Errorf("anonymous everywhere: %v", err)
	}
}

// reviewHook answers reviews and writes the kubeconfig by which it is reached.
func reviewHook(t *testing.T, answer func(body map[string]any) map[string]any) (kubeconfig string) {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body["status"] = answer(body)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(body)
	}))
	t.Cleanup(s.Close)
	dir := t.TempDir()
	ca, kubeconfig := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "kubeconfig")
	write(t, ca, serverCA(s))
	write(t, kubeconfig, fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: h, cluster: {server: %q, certificate-authority: %q}}]\n"+
		"users: [{name: u, user: {}}]\ncontexts: [{name: c, context: {cluster: h, user: u}}]\ncurrent-context: c\n", s.URL, ca))
	return kubeconfig
}

func TestAWebhookKnowsTokensThatNobodyElseKnows(t *testing.T) {
	config := reviewHook(t, func(body map[string]any) map[string]any {
		spec, _ := body["spec"].(map[string]any)
		if spec["token"] != "open sesame" {
			return map[string]any{"authenticated": false}
		}
		return map[string]any{"authenticated": true, "user": map[string]any{"username": "ali", "groups": []string{"thieves"}}}
	})
	f := start(t, func(c *apiserver.Config) { c.TokenWebhook = apiserver.TokenWebhook{File: config, Version: "v1"} })
	c := f.client(t, f.admin(t))
	if st := review(t, c, "open sesame"); !st.Authenticated || st.User.Username != "ali" {
		t.Errorf("a token that it knows: %+v", st)
	}
	if st := review(t, c, "open barley"); st.Authenticated {
		t.Errorf("a token that it knows not: %+v", st)
	}
}

func TestAWebhookDecidesWhereItsConditionMatches(t *testing.T) {
	var asked atomic.Int64
	config := reviewHook(t, func(body map[string]any) map[string]any {
		asked.Add(1)
		spec, _ := body["spec"].(map[string]any)
		user, _ := spec["user"].(string)
		return map[string]any{"allowed": user == "ann", "denied": user == "eve"}
	})
	file := filepath.Join(t.TempDir(), "authorization.yaml")
	authorization := func(match string) string {
		return fmt.Sprintf(`
apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- {type: Node, name: node}
- type: Webhook
  name: hook
  webhook:
    timeout: 3s
    authorizedTTL: 1ms
    unauthorizedTTL: 1ms
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: Deny
    connectionInfo: {type: KubeConfigFile, kubeConfigFile: %q}
    matchConditions:
    - expression: %s
- {type: RBAC, name: rbac}
`, config, match)
	}
	write(t, file, authorization(`has(request.resourceAttributes) && request.resourceAttributes.resource == "secrets"`))
	f := start(t, func(c *apiserver.Config) { c.AuthorizationFile = file })
	admin := f.client(t, f.admin(t))
	allowed := func(user, resource string) authorizationv1.SubjectAccessReviewStatus {
		r, err := admin.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "get", Resource: resource, Namespace: "default"}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return r.Status
	}
	if st := allowed("ann", "secrets"); !st.Allowed {
		t.Errorf("where the hook allows: %+v", st)
	}
	if st := allowed("eve", "secrets"); st.Allowed || !st.Denied {
		t.Errorf("where the hook denies: %+v", st)
	}
	before := asked.Load()
	if st := allowed("ann", "configmaps"); st.Allowed {
		t.Errorf("where its condition does not match: %+v", st)
	}
	if n := asked.Load(); n != before {
		t.Errorf("it was asked %d times where its condition does not match", n-before)
	}
	write(t, file, strings.Replace(authorization("true"), "- {type: RBAC, name: rbac}", "", 1)) // refused: RBAC is missing
	write(t, file, authorization(`has(request.resourceAttributes) && request.resourceAttributes.resource == "configmaps"`))
	eventually(t, "the new configuration is taken", func() bool { return allowed("ann", "configmaps").Allowed })
	if st := allowed("ann", "secrets"); st.Allowed {
		t.Errorf("the old condition still matches: %+v", st)
	}
}

func TestAWrongConfigurationKeepsAServerFromStarting(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "x.yaml")
	for name, row := range map[string]struct {
		content string
		change  func(*apiserver.Config)
	}{
		"no RBAC": {
			"apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: [{type: Node, name: node}]\n",
			func(c *apiserver.Config) { c.AuthorizationFile = file },
		},
		"an unknown field": {
			"apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymus: {}\n",
			func(c *apiserver.Config) { c.AuthenticationFile = file },
		},
		"its own issuer": {
			"apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: [{issuer: {url: \"https://kubernetes.default.svc\", audiences: [a]}, claimMappings: {username: {claim: sub, prefix: \"\"}}}]\n",
			func(c *apiserver.Config) { c.AuthenticationFile = file },
		},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, file, row.content)
			cfg := apiserver.Config{Peer: "b", Store: memstore.New(), Kinds: kinds.All()}
			row.change(&cfg)
			if _, err := apiserver.New(cfg); err == nil {
				t.Error("it was taken")
			}
		})
	}
}
