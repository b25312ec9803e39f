package apiserver

import (
	"maps"
	"net/http"
	"strings"

	"github.com/emicklei/go-restful/v3"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	crdopenapi "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	aggscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	aggopenapi "k8s.io/kube-aggregator/pkg/generated/openapi"
	openapicommon "k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"skein.dev/skein/apiserver/openapi"
	"skein.dev/skein/apiserver/publish"
)

const apiTitle = "Kubernetes"

// definitions are the types of all servers of the chain.
func definitions(ref openapicommon.ReferenceCallback) map[string]openapicommon.OpenAPIDefinition {
	all := openapi.GetOpenAPIDefinitions(ref)
	maps.Copy(all, crdopenapi.GetOpenAPIDefinitions(ref))
	maps.Copy(all, aggopenapi.GetOpenAPIDefinitions(ref))
	return all
}

// describe tells the library the types: field managers need them.
func (s *Server) describe(c *genericapiserver.RecommendedConfig) {
	namer := openapinamer.NewDefinitionNamer(s.scheme.External, crdserver.Scheme, aggscheme.Scheme)
	c.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(definitions, namer)
	c.OpenAPIV3Config.Info.Title = apiTitle
	c.OpenAPIV3Config.SecuritySchemes = spec3.SecuritySchemes{bearer: &spec3.SecurityScheme{SecuritySchemeProps: spec3.SecuritySchemeProps{
		Type: "apiKey", Name: "authorization", In: "header", Description: "Bearer Token authentication",
	}}}
}

// bearer is the one way to authenticate that the description of the API names;
// with it, each request may be answered with 401.
const bearer = "BearerToken"

// forgetTypes drops the types that c holds: who asks for them again makes them
// with GetDefinitions. The library's builder leaves a function in c that holds
// the builder and all it has made; it puts another there when it needs one.
func forgetTypes(c *openapicommon.OpenAPIV3Config) {
	c.Definitions, c.GetOperationIDAndTagsFromRoute = nil, nil
}

// extensionTypes are those that one server of the chain has itself.
func extensionTypes(scheme *runtime.Scheme, defs openapicommon.GetOpenAPIDefinitions) *openapicommon.OpenAPIV3Config {
	return genericapiserver.DefaultOpenAPIV3Config(defs, openapinamer.NewDefinitionNamer(scheme))
}

// publishAPI describes the API to whoever asks. The library would build and
// keep all documents from the start on.
func (s *Server) publishAPI(c *genericapiserver.RecommendedConfig, kinds *genericapiserver.GenericAPIServer, crds *crdserver.CustomResourceDefinitions) {
	namer := openapinamer.NewDefinitionNamer(s.scheme.External, crdserver.Scheme, aggscheme.Scheme)
	v2 := genericapiserver.DefaultOpenAPIConfig(definitions, namer)
	forgetTypes(c.OpenAPIV3Config) // the publisher makes them again while somebody asks
	v2.Info.Title, v2.Info.Version = apiTitle, "v"+Version
	v2.SecurityDefinitions = &spec.SecurityDefinitions{bearer: &spec.SecurityScheme{SecuritySchemeProps: spec.SecuritySchemeProps{
		Type: "apiKey", Name: "authorization", In: "header", Description: "Bearer Token authentication",
	}}}
	v2.DefaultSecurity = []map[string][]string{{bearer: {}}}
	v2.CommonResponses = map[int]spec.Response{
		http.StatusUnauthorized: {ResponseProps: spec.ResponseProps{Description: "Unauthorized"}},
	}
	c.OpenAPIV3Config.Info.Version = v2.Info.Version
	var services []*restful.WebService
	for _, g := range []*genericapiserver.GenericAPIServer{s.generic, crds.GenericAPIServer, kinds} {
		services = append(services, g.Handler.GoRestfulContainer.RegisteredWebServices()...)
	}
	s.publisher = publish.New(publish.Config{
		Services: services, ConfigV2: v2, ConfigV3: c.OpenAPIV3Config, Others: s.others,
		CRDs: func() ([]*apiextensionsv1.CustomResourceDefinition, error) { return s.crds.List(labels.Everything()) },
	})
}

// described answers what the API looks like.
func (s *Server) described(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path := r.URL.Path; r.Method == http.MethodGet &&
			(path == publish.V2 || path == publish.V3 || strings.HasPrefix(path, publish.V3+"/")) {
			s.publisher.ServeHTTP(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}
