package apiserver

import (
	"fmt"
	"log" //nolint:depguard // http.Server has no other way to be told where its errors go
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-base/compatibility"
	buildversion "k8s.io/component-base/version"
	aggscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"

	"skein.dev/skein/apiserver/registry"
)

// Version is the Kubernetes API that is served.
const Version = "1.37.2"

// effective says which API and whose server this is.
type effective struct{ compatibility.EffectiveVersion }

// Info implements compatibility.EffectiveVersion.
func (e effective) Info() *version.Info {
	i := e.EffectiveVersion.Info()
	i.GitVersion = "v" + Version + "+skein"
	if built := buildversion.Get().GitVersion; strings.HasPrefix(built, "v"+Version) { // set by the linker
		i.GitVersion = built
	}
	if i.GitTreeState == "" {
		i.GitTreeState = "clean"
	}
	return i
}

func serverLog(l *slog.Logger) *log.Logger { return slog.NewLogLogger(l.Handler(), slog.LevelDebug) }

// build assembles the chained servers: aggregator, kinds, custom resources.
func (s *Server) build() error {
	var err error
	if s.scheme, err = registry.NewScheme(s.cfg.Kinds); err != nil {
		return err
	}
	if err := s.makeAuditing(); err != nil {
		return err
	}
	options, err := s.options()
	if err != nil {
		return err
	}
	s.kept = options
	for i := range s.cfg.Kinds {
		k := &s.cfg.Kinds[i]
		r, err := registry.New(k, s.scheme, options)
		if err != nil {
			return err
		}
		s.resources[k.Resource.Group+"/"+k.Resource.Resource] = r
	}
	cfg, err := s.genericConfig(options)
	if err != nil {
		return err
	}
	crds, err := s.buildExtensions(cfg, options)
	if err != nil {
		return fmt.Errorf("custom resources: %w", err)
	}
	s.crds = crds.Informers.Apiextensions().V1().CustomResourceDefinitions().Lister()
	own := fork(cfg)
	own.SkipOpenAPIInstallation = true // published lazily, see publish.go
	kinds, err := own.Complete().New("skein", crds.GenericAPIServer)
	if err != nil {
		return err
	}
	if err := s.install(kinds); err != nil {
		return err
	}
	s.short.learn(kinds)
	if err := s.buildAggregator(cfg, kinds, crds); err != nil {
		return fmt.Errorf("aggregator: %w", err)
	}
	s.publishAPI(cfg, kinds, crds)
	shed(s.generic, crds.GenericAPIServer, kinds)
	s.handler = roomy(s.front(s.generic.Handler))
	return nil
}

// fork copies what a chained server must not share.
func fork(c *genericapiserver.RecommendedConfig) *genericapiserver.RecommendedConfig {
	out := *c
	out.PostStartHooks = map[string]genericapiserver.PostStartHookConfigEntry{}
	return &out
}

func (s *Server) genericConfig(options *registry.Options) (*genericapiserver.RecommendedConfig, error) {
	c := genericapiserver.NewRecommendedConfig(s.scheme.Codecs)
	c.LoopbackClientConfig = s.ClientConfig(selfUser)
	loopback, err := kubernetes.NewForConfig(c.LoopbackClientConfig)
	if err != nil {
		return nil, err
	}
	c.SharedInformerFactory = informers.NewSharedInformerFactory(loopback, 0)
	c.EffectiveVersion = effective{compatibility.NewEffectiveVersionFromString(Version, "1.37", "1.37")}
	c.ExternalAddress = "kubernetes.default.svc:443"
	c.EnableProfiling = false
	c.FlowControl = nil
	c.StorageObjectCountTracker = nil
	c.LongRunningFunc = longRunning()
	c.RequestTimeout = s.cfg.RequestTimeout
	c.BuildHandlerChainFunc = s.chain
	c.AddReadyzChecks(healthz.NamedCheck("store-quorum", s.quorum), healthz.NamedCheck("first-objects", s.first),
		healthz.NamedCheck("stopping", s.stays))
	if s.encryption != nil {
		c.AddHealthChecks(healthz.NamedCheck("kms-providers", s.encryption.check))
	}
	c.AggregatedDiscoveryGroupManager = aggregated.NewResourceManager("apis") // shared, else groups vanish from discovery
	c.RESTOptionsGetter = options.Getter(s.foreignCodec)
	if s.headers, err = s.requestHeaders(); err != nil {
		return nil, err
	}
	c.Authentication.RequestHeaderConfig = s.headers
	if c.Authentication.Authenticator, err = s.authenticator(); err != nil {
		return nil, err
	}
	if err = s.authorizer(); err != nil {
		return nil, err
	}
	c.Authorization.Authorizer = s.authz
	if c.AdmissionControl, err = s.admission(c); err != nil {
		return nil, err
	}
	s.describe(c)
	return c, nil
}

// foreignCodec is how the resources of the chained servers' own are stored.
func (s *Server) foreignCodec(r schema.GroupResource) (runtime.Codec, runtime.GroupVersioner) {
	factory, gv := crdserver.Codecs, apiextensionsv1.SchemeGroupVersion
	if r.Group == aggregatorVersion().Group {
		factory, gv = aggscheme.Codecs, aggregatorVersion()
	}
	info, _ := runtime.SerializerInfoForMediaType(factory.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	hub := schema.GroupVersion{Group: gv.Group, Version: runtime.APIVersionInternal}
	return factory.CodecForVersions(info.Serializer, factory.UniversalDeserializer(), gv, hub), gv
}

// install serves the kinds, group by group.
func (s *Server) install(g *genericapiserver.GenericAPIServer) error {
	storages := map[schema.GroupVersion]map[string]rest.Storage{}
	put := func(gv schema.GroupVersion, path string, st rest.Storage) {
		if storages[gv] == nil {
			storages[gv] = map[string]rest.Storage{}
		}
		storages[gv][path] = st
	}
	for _, r := range s.resources {
		for path, st := range r.Paths {
			put(r.Kind.Resource.GroupVersion(), path, st)
			for _, v := range r.Kind.Versions {
				put(v.Resource.GroupVersion(), path, st)
			}
		}
	}
	if err := s.addSubresources(put); err != nil {
		return err
	}
	groups := map[string]*genericapiserver.APIGroupInfo{}
	for gv, paths := range storages {
		info := groups[gv.Group]
		if info == nil {
			i := genericapiserver.NewDefaultAPIGroupInfo(gv.Group, s.scheme.Scheme, runtime.NewParameterCodec(s.scheme.Scheme), s.scheme.Codecs)
			i.NegotiatedSerializer = s.scheme.Wire()
			info = &i
			groups[gv.Group] = info
		}
		info.VersionedResourcesStorageMap[gv.Version] = paths
	}
	if core := groups[""]; core != nil {
		if err := g.InstallLegacyAPIGroup(genericapiserver.DefaultLegacyAPIPrefix, core); err != nil {
			return fmt.Errorf("install the core group: %w", err)
		}
		core.StaticOpenAPISpec = nil // the library keeps it, and nobody reads it again
		delete(groups, "")
	}
	// All at once: what field managers know of the types is built once for all.
	named := slices.Collect(maps.Values(groups))
	if err := g.InstallAPIGroups(named...); err != nil {
		return fmt.Errorf("install groups: %w", err)
	}
	for _, info := range named {
		info.StaticOpenAPISpec = nil
	}
	s.publishIssuer(g)
	for _, h := range s.cfg.Handlers {
		if !h.Open {
			s.mount(g, h.Path, h.Handler)
		}
	}
	return nil
}

func (*Server) mount(g *genericapiserver.GenericAPIServer, path string, h http.Handler) {
	if strings.HasSuffix(path, "/") {
		g.Handler.NonGoRestfulMux.HandlePrefix(path, h)
		return
	}
	g.Handler.NonGoRestfulMux.Handle(path, h)
}

// groupVersions are all that the kinds are served in.
func (s *Server) groupVersions() []schema.GroupVersion {
	seen := map[schema.GroupVersion]bool{authenticationv1.SchemeGroupVersion: true, authorizationv1.SchemeGroupVersion: true}
	for _, k := range s.cfg.Kinds {
		seen[k.Resource.GroupVersion()] = true
		for _, v := range k.Versions {
			seen[v.Resource.GroupVersion()] = true
		}
	}
	var out []schema.GroupVersion
	for gv := range seen {
		out = append(out, gv)
	}
	slices.SortFunc(out, func(a, b schema.GroupVersion) int { return strings.Compare(a.String(), b.String()) })
	return out
}
