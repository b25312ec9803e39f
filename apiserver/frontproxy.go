package apiserver

import (
	"fmt"

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

func byRequestHeader(c *authenticatorfactory.RequestHeaderConfig) authenticator.Request {
	return headerrequest.NewDynamicVerifyOptionsSecure(c.CAContentProvider.VerifyOptions, c.AllowedClientNames,
		c.UsernameHeaders, c.UIDHeaders, c.GroupHeaders, c.ExtraHeaderPrefixes)
}
