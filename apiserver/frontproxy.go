package apiserver

import (
	"fmt"
	"net/http"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

// requestHeaders are those by which a front proxy says in whose name it asks;
// nil if nobody may speak for others.
func (s *Server) requestHeaders() (*authenticatorfactory.RequestHeaderConfig, error) {
	if len(s.cfg.FrontProxy.CAPEM) == 0 {
		return nil, nil //nolint:nilnil // documented
	}
	ca, err := dynamiccertificates.NewStaticCAContent("front-proxy", s.cfg.FrontProxy.CAPEM)
	if err != nil {
		return nil, fmt.Errorf("front proxy's authority: %w", err)
	}
	fixed := func(v string) headerrequest.StringSliceProvider { return headerrequest.StaticStringSlice{v} }
	return &authenticatorfactory.RequestHeaderConfig{
		UsernameHeaders: fixed("X-Remote-User"), UIDHeaders: fixed("X-Remote-Uid"), GroupHeaders: fixed("X-Remote-Group"),
		ExtraHeaderPrefixes: fixed("X-Remote-Extra-"), CAContentProvider: ca, AllowedClientNames: fixed(frontProxyName),
	}, nil
}

// byRequestHeader knows the user in whose name a front proxy asks. Requests
// that name none, which are nearly all, are not held against the proxies'
// authority: verifying a certificate costs more than the rest of a GET.
func byRequestHeader(c *authenticatorfactory.RequestHeaderConfig) authenticator.Request {
	proxied := headerrequest.NewDynamicVerifyOptionsSecure(c.CAContentProvider.VerifyOptions, c.AllowedClientNames,
		c.UsernameHeaders, c.UIDHeaders, c.GroupHeaders, c.ExtraHeaderPrefixes)
	return authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		for _, name := range c.UsernameHeaders.Value() {
			if r.Header.Get(name) != "" {
				return proxied.AuthenticateRequest(r)
			}
		}
		return nil, false, nil
	})
}
