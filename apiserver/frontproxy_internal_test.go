package apiserver

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

// untouched is an authority that tells when somebody is held against it.
type untouched struct {
	dynamiccertificates.CAContentProvider

	asked bool
}

// VerifyOptions implements dynamiccertificates.CAContentProvider.
func (u *untouched) VerifyOptions() (x509.VerifyOptions, bool) {
	u.asked = true
	return x509.VerifyOptions{}, false
}

// Verifying each client's certificate twice made a GET three times as dear.
func TestOnlyWhoNamesAUserIsHeldAgainstTheFrontProxysAuthority(t *testing.T) {
	for name, want := range map[string]bool{"": false, "ann": true} {
		ca := &untouched{}
		fixed := headerrequest.StaticStringSlice{"X-Remote-User"}
		a := byRequestHeader(&authenticatorfactory.RequestHeaderConfig{
			UsernameHeaders: fixed, UIDHeaders: fixed, GroupHeaders: fixed, ExtraHeaderPrefixes: fixed, AllowedClientNames: fixed,
			CAContentProvider: ca,
		})
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api", nil)
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}}
		r.Header.Set("X-Remote-User", name)
		if _, ok, _ := a.AuthenticateRequest(r); ok {
			t.Errorf("user %q: known without an authority", name)
		}
		if ca.asked != want {
			t.Errorf("user %q: held against the authority: %t, want %t", name, ca.asked, want)
		}
	}
}
