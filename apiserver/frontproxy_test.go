package apiserver_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"

	"skein.dev/skein/apiserver"
)

// proxied is a server with a front proxy's authority beside that of clients.
func proxied(t *testing.T) (*fixture, *authority) {
	t.Helper()
	ca := newAuthority(t)
	file := filepath.Join(t.TempDir(), "front-proxy.pem")
	cert, key := ca.issue(t, "front-proxy-client")
	if err := os.WriteFile(file, append(cert, key...), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, func(c *apiserver.Config) {
		c.FrontProxy = apiserver.FrontProxy{CAPEM: ca.pem, CertFile: file, KeyFile: file}
		c.ClientCAPEM = ca.pem
	}), ca
}

func TestAFrontProxySpeaksForOthersAndNobodyElseDoes(t *testing.T) {
	f, ca := proxied(t)
	as := func(cfg *rest.Config) authenticationv1.UserInfo {
		t.Helper()
		cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return transport.NewAuthProxyRoundTripper("ann", "u1", []string{"devs"}, map[string][]string{"Some/Key": {"v"}}, next)
		})
		r, err := f.client(t, cfg).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return r.Status.UserInfo
	}
	signed := func(by *authority, name string) *rest.Config {
		cfg := f.user(t, name)
		cfg.CertData, cfg.KeyData = by.issue(t, name)
		return cfg
	}
	if u := as(signed(ca, "front-proxy-client")); u.Username != "ann" || u.UID != "u1" || len(u.Groups) != 2 || u.Groups[0] != "devs" || u.Extra["some/key"][0] != "v" {
		t.Errorf("by the front proxy: %+v, want what its headers say", u)
	}
	if u := as(f.user(t, "front-proxy-client")); u.Username != "front-proxy-client" || len(u.Extra["some/key"]) != 0 {
		t.Errorf("by a client of the name: %+v, want the client itself", u)
	}
	cfg := signed(ca, "somebody")
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return transport.NewAuthProxyRoundTripper("ann", "", nil, nil, next)
	})
	if _, err := f.client(t, cfg).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{}); err == nil {
		t.Error("another name of the front proxy's authority speaks for others")
	}
	m, err := f.client(t, f.admin(t)).CoreV1().ConfigMaps("kube-system").Get(t.Context(), "extension-apiserver-authentication", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"requestheader-client-ca-file": string(ca.pem), "requestheader-allowed-names": `["front-proxy-client"]`,
		"requestheader-username-headers": `["X-Remote-User"]`, "requestheader-uid-headers": `["X-Remote-Uid"]`,
		"requestheader-group-headers": `["X-Remote-Group"]`, "requestheader-extra-headers-prefix": `["X-Remote-Extra-"]`,
	} {
		if m.Data[key] != want {
			t.Errorf("published %s: got %q, want %q", key, m.Data[key], want)
		}
	}
}
