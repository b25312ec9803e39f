package apiserver

import (
	"encoding/json"
	"errors"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	genericapiserver "k8s.io/apiserver/pkg/server"

	"skein.dev/skein/api/sealkey"
	"skein.dev/skein/api/tokenkey"
)

// Where others learn how to check this cluster's tokens (OpenID Connect
// Discovery 1.0, section 4).
const (
	discoveryPath = "/.well-known/openid-configuration"
	keysPath      = "/openid/v1/jwks"
)

// publishIssuer serves the issuer's discovery document and its keys, and what
// looks after the keys of tokens and of sealing.
func (s *Server) publishIssuer(g *genericapiserver.GenericAPIServer) {
	if s.seals != nil {
		s.mount(g, sealkey.Path, s.seals)
	}
	if s.tokens == nil {
		return
	}
	s.mount(g, discoveryPath, document("application/json", map[string]any{
		"issuer": s.tokens.Issuer(), "jwks_uri": s.tokens.Issuer() + keysPath,
		"response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported": []string{"ES256"},
	}))
	// The keys change when one is replaced.
	s.mount(g, keysPath, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		document("application/jwk-set+json", s.tokens.Keys()).ServeHTTP(w, r)
	}))
	s.mount(g, tokenkey.Path, s.keys)
}

func document(media string, v any) http.Handler {
	raw, err := json.Marshal(v)
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", media)
		w.Header().Set("Cache-Control", "public, max-age=3600")
		_, _ = w.Write(raw) // the client has gone
	})
}

// MintToken makes the token of a Secret of type
// kubernetes.io/service-account-token, for the controller that fills them.
func (s *Server) MintToken(account *corev1.ServiceAccount, secret *corev1.Secret) (string, error) {
	if s.tokens == nil {
		return "", errors.New("this server has no key to sign tokens with")
	}
	return s.tokens.IssueLegacy(account, secret)
}
