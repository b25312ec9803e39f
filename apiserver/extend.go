package apiserver

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"

	noopoteltrace "go.opentelemetry.io/otel/trace/noop"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	crdopenapi "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/tools/cache"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregator "k8s.io/kube-aggregator/pkg/apiserver"
	aggscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	aggclient "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset/typed/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/controllers/autoregister"
	aggopenapi "k8s.io/kube-aggregator/pkg/generated/openapi"

	"skein.dev/skein/apiserver/registry"
)

func aggregatorVersion() schema.GroupVersion { return apiregistrationv1.SchemeGroupVersion }

// Priorities of groups in discovery: ours before custom ones.
const (
	kindPriority, kindVersionPriority     = 17000, 15
	customPriority, customVersionPriority = 1000, 100
)

func (s *Server) buildExtensions(cfg *genericapiserver.RecommendedConfig, options *registry.Options) (*crdserver.CustomResourceDefinitions, error) {
	c := fork(cfg)
	c.SkipOpenAPIInstallation = true
	c.OpenAPIV3Config = extensionTypes(crdserver.Scheme, crdopenapi.GetOpenAPIDefinitions)
	c.MergedResourceConfig = crdserver.DefaultAPIResourceConfigSource()
	crd := &crdserver.Config{
		GenericConfig: c,
		ExtraConfig: crdserver.ExtraConfig{
			CRDRESTOptionsGetter: options.Getter(customCodec),
			MasterCount:          1,
			ServiceResolver:      resolver{s},
			AuthResolverWrapper: webhook.NewDefaultAuthenticationInfoResolverWrapper(
				nil, nil, cfg.LoopbackClientConfig, noopoteltrace.NewTracerProvider()),
		},
	}
	server, err := crd.Complete().New(genericapiserver.NewEmptyDelegate())
	forgetTypes(c.OpenAPIV3Config)
	return server, err
}

// customCodec is how custom resources are stored; apiextensions wraps it with
// their schema and versions.
func customCodec(schema.GroupResource) (runtime.Codec, runtime.GroupVersioner) {
	return unstructured.UnstructuredJSONScheme, nil
}

func (s *Server) buildAggregator(cfg *genericapiserver.RecommendedConfig, kinds *genericapiserver.GenericAPIServer, crds *crdserver.CustomResourceDefinitions) error {
	c := fork(cfg)
	c.SkipOpenAPIInstallation = true
	c.OpenAPIV3Config = extensionTypes(aggscheme.Scheme, aggopenapi.GetOpenAPIDefinitions)
	c.MergedResourceConfig = aggregator.DefaultAPIResourceConfigSource()
	config := &aggregator.Config{
		GenericConfig: c,
		ExtraConfig: aggregator.ExtraConfig{
			ServiceResolver:     resolver{s},
			ProxyClientCertFile: s.cfg.FrontProxy.CertFile, ProxyClientKeyFile: s.cfg.FrontProxy.KeyFile,
			DisableRemoteAvailableConditionController: true, // ours begins with the first remote server
		},
	}
	behind := &delegates{DelegationTarget: kinds}
	agg, err := config.Complete().NewWithDelegate(behind)
	if err != nil {
		return err
	}
	behind.done = true
	if err := s.register(agg, crds, cfg); err != nil {
		return err
	}
	if err := s.watchRemotes(agg, cfg); err != nil {
		return err
	}
	if err := s.short.follow(agg.APIRegistrationInformers.Apiregistration().V1().APIServices().Informer()); err != nil {
		return err
	}
	prepared, err := agg.PrepareRun()
	if err != nil {
		return err
	}
	forgetTypes(c.OpenAPIV3Config)
	s.generic = prepared.GenericAPIServer
	s.others = agg.GenericAPIServer.Handler.NonGoRestfulMux
	return nil
}

// delegates are the servers behind the aggregator, to which it passes requests
// on. Once it is built it sees none: it would ask each every second whether its
// description has changed, which the publisher knows better.
type delegates struct {
	genericapiserver.DelegationTarget

	done bool
}

// UnprotectedHandler implements genericapiserver.DelegationTarget.
func (d *delegates) UnprotectedHandler() http.Handler {
	if d.done {
		return nil
	}
	return d.DelegationTarget.UnprotectedHandler()
}

// NextDelegate implements genericapiserver.DelegationTarget.
func (d *delegates) NextDelegate() genericapiserver.DelegationTarget {
	if d.done {
		return nil
	}
	return d.DelegationTarget.NextDelegate()
}

// register keeps an APIService for every group that this server has itself:
// what the aggregator does not know it does not list.
func (s *Server) register(agg *aggregator.APIAggregator, crds *crdserver.CustomResourceDefinitions, cfg *genericapiserver.RecommendedConfig) error {
	client, err := aggclient.NewForConfig(cfg.LoopbackClientConfig)
	if err != nil {
		return err
	}
	auto := autoregister.NewAutoRegisterController(agg.APIRegistrationInformers.Apiregistration().V1().APIServices(), client)
	for _, gv := range append(s.groupVersions(), apiextensionsv1.SchemeGroupVersion) {
		auto.AddAPIServiceToSync(apiService(gv, kindPriority, kindVersionPriority))
	}
	informer := crds.Informers.Apiextensions().V1().CustomResourceDefinitions().Informer()
	settle := func(obj any) {
		if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = gone.Obj
		}
		if crd, ok := obj.(*apiextensionsv1.CustomResourceDefinition); ok {
			settle(auto, informer.GetStore(), crd)
		}
	}
	told, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: settle, DeleteFunc: settle,
		UpdateFunc: func(before, after any) { settle(before); settle(after) },
	})
	if err != nil {
		return err
	}
	return agg.GenericAPIServer.AddPostStartHook("autoregister", func(c genericapiserver.PostStartHookContext) error {
		go func() {
			// What it has not been told of by then it takes away from all peers.
			if cache.WaitForCacheSync(c.Done(), told.HasSynced) {
				auto.Run(1, c.Done())
			}
		}()
		return nil
	})
}

// settle registers the versions that crd names and that it, or another
// definition of its group, serves now, and drops the others. All peers must
// come to the same answer, whatever each has seen before: a peer registers
// again what another takes away.
func settle(auto autoregister.AutoAPIServiceRegistration, definitions cache.Store, crd *apiextensionsv1.CustomResourceDefinition) {
	served := map[string]bool{}
	for _, obj := range definitions.List() {
		if other, ok := obj.(*apiextensionsv1.CustomResourceDefinition); ok && other.Spec.Group == crd.Spec.Group {
			for _, v := range other.Spec.Versions {
				served[v.Name] = served[v.Name] || v.Served
			}
		}
	}
	for _, v := range crd.Spec.Versions {
		gv := schema.GroupVersion{Group: crd.Spec.Group, Version: v.Name}
		if served[v.Name] {
			auto.AddAPIServiceToSync(apiService(gv, customPriority, customVersionPriority))
		} else {
			auto.RemoveAPIServiceToSync(v.Name + "." + crd.Spec.Group)
		}
	}
}

func apiService(gv schema.GroupVersion, group, versionPriority int32) *apiregistrationv1.APIService {
	return &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: gv.Version + "." + gv.Group},
		Spec: apiregistrationv1.APIServiceSpec{
			Group: gv.Group, Version: gv.Version, GroupPriorityMinimum: group, VersionPriority: versionPriority,
		},
	}
}

// resolver finds the services behind webhooks and aggregated APIs.
type resolver struct{ s *Server }

// ResolveEndpoint implements the resolvers of aggregator and webhooks.
func (r resolver) ResolveEndpoint(namespace, name string, port int32) (*url.URL, error) {
	obj, err := r.s.peek("/services", namespace, name)
	if err != nil {
		return nil, err
	}
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return nil, fmt.Errorf("service %s/%s does not exist", namespace, name)
	}
	host := svc.Spec.ClusterIP
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		host = svc.Spec.ExternalName
	}
	if host == "" || host == corev1.ClusterIPNone {
		return nil, fmt.Errorf("service %s/%s has no cluster IP", namespace, name)
	}
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(int(port)))}, nil
}

// peek reads one object of the replica, shared and read-only; nil if there is
// none. The resource is "group/resource".
func (s *Server) peek(resource, namespace, name string) (runtime.Object, error) {
	r := s.resources[resource]
	if r == nil {
		return nil, nil //nolint:nilnil // a kind that is not served has no objects
	}
	return r.Keep.Peek(s.base, s.cfg.Store.Local(), namespace, name)
}
