package apiserver

import (
	"context"
	"net/http"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/union"
	authx509 "k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/registry/rest"
)

func (s *Server) claims(schema.GroupResource) func(runtime.Object) []string { return nil }

func (s *Server) admission() admission.Interface { return admission.NewChainHandler() }

func (s *Server) authenticator() (authenticator.Request, error) {
	all := []authenticator.Request{authenticator.RequestFunc(authenticateInProcess)}
	if s.cfg.ClientCAs != nil {
		opts := authx509.DefaultVerifyOptions()
		opts.Roots = s.cfg.ClientCAs
		all = append(all, authx509.New(opts, authx509.CommonNameUserConversion))
	}
	all = append(all, anonymous.NewAuthenticator(nil))
	return group.NewAuthenticatedGroupAdder(union.NewFailOnError(all...)), nil
}

func (s *Server) authorizer() authorizer.Authorizer {
	return authorizerfactory.NewPrivilegedGroups("system:masters")
}

func (s *Server) addSubresources(func(schema.GroupVersion, string, rest.Storage)) error { return nil }

func (s *Server) maintain(ctx context.Context) error { <-ctx.Done(); return nil }

var _ http.Handler
