package apiserver

import (
	"encoding/json"
	"net/http"

	genericapiserver "k8s.io/apiserver/pkg/server"
)

// Where others learn how to check this cluster's tokens (OpenID Connect
// Discovery 1.0, section 4).
const (
	discoveryPath = "/.well-known/openid-configuration"
	keysPath      = "/openid/v1/jwks"
)

// publishIssuer serves the issuer's discovery document and its keys.
func (s *Server) publishIssuer(g *genericapiserver.GenericAPIServer) {
	if s.tokens == nil {
		return
	}
	s.mount(g, discoveryPath, document("application/json", map[string]any{
		"issuer": s.tokens.Issuer(), "jwks_uri": s.tokens.Issuer() + keysPath,
		"response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported": []string{"ES256"},
	}))
	s.mount(g, keysPath, document("application/jwk-set+json", s.tokens.Keys()))
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
