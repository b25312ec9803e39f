package apiserver

import (
	"mime"
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
)

// plainCustom refuses objects of users' own kinds in protobuf, which has no
// schema for them: the library lists it among their encodings without a strict
// decoder, and a body in it ends in a panic. Their Scale has one.
func (s *Server) plainCustom(h http.Handler, codecs runtime.NegotiatedSerializer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost || r.Method == http.MethodPut {
			media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
			info, ok := genericapirequest.RequestInfoFrom(r.Context())
			if err == nil && media == runtime.ContentTypeProtobuf && ok && info.IsResourceRequest && info.Subresource != "scale" && strings.Contains(info.APIGroup, ".") {
				if _, err := s.crds.Get(info.Resource + "." + info.APIGroup); err == nil {
					gv := schema.GroupVersion{Group: info.APIGroup, Version: info.APIVersion}
					refusal := negotiation.NewUnsupportedMediaTypeError([]string{runtime.ContentTypeJSON, runtime.ContentTypeYAML})
					responsewriters.ErrorNegotiated(refusal, codecs, gv, w, r)
					return
				}
			}
		}
		h.ServeHTTP(w, r)
	})
}
