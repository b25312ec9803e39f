package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregator "k8s.io/kube-aggregator/pkg/apiserver"
	aggclient "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"
	agginformers "k8s.io/kube-aggregator/pkg/client/informers/externalversions"
	availabilitymetrics "k8s.io/kube-aggregator/pkg/controllers/status/metrics"
	"k8s.io/kube-aggregator/pkg/controllers/status/remote"

	"skein.dev/skein/apiserver/bootstrap"
)

// remoteCheckers is how many aggregated API servers are asked at a time
// whether they serve.
const remoteCheckers = 5

// watchRemotes keeps the condition Available of the APIServices that lead to
// other servers: nothing is passed on to one that is not available. It costs
// informers of services and their endpoints, so it begins with the first one.
func (s *Server) watchRemotes(agg *aggregator.APIAggregator, cfg *genericapiserver.RecommendedConfig) error {
	first := make(chan struct{})
	var once sync.Once
	look := func(obj any) {
		if svc, ok := obj.(*apiregistrationv1.APIService); ok && svc.Spec.Service != nil {
			once.Do(func() { close(first) })
		}
	}
	_, err := agg.APIRegistrationInformers.Apiregistration().V1().APIServices().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: look, UpdateFunc: func(_, obj any) { look(obj) },
	})
	if err != nil {
		return err
	}
	return agg.GenericAPIServer.AddPostStartHook("apiservice-status-remote", func(c genericapiserver.PostStartHookContext) error {
		go func() {
			select {
			case <-c.Done():
				return
			case <-first:
			}
			if err := s.runRemotes(c, cfg); err != nil {
				s.cfg.Log.ErrorContext(c, "aggregated api servers are not watched", "error", err)
			}
		}()
		return nil
	})
}

func (s *Server) runRemotes(ctx context.Context, cfg *genericapiserver.RecommendedConfig) error {
	client, err := kubernetes.NewForConfig(cfg.LoopbackClientConfig)
	if err != nil {
		return err
	}
	registrations, err := aggclient.NewForConfig(cfg.LoopbackClientConfig)
	if err != nil {
		return err
	}
	informers := s.Informers(client)
	// Not the aggregator's informer of APIServices: that one may be stopping
	// by now, and the checker cannot be made on one that has stopped.
	services := agginformers.NewSharedInformerFactory(registrations, 0)
	checker, err := remote.New(services.Apiregistration().V1().APIServices(),
		informers.Core().V1().Services(), informers.Discovery().V1().EndpointSlices(),
		registrations.ApiregistrationV1(), nil, s.frontProxy, resolver{s}, availabilitymetrics.New())
	if err != nil {
		return err
	}
	services.Start(ctx.Done())
	informers.Start(ctx.Done())
	checker.Run(remoteCheckers, ctx.Done())
	return nil
}

// frontProxy reads the certificate and key that are shown to aggregated API
// servers: asked by a stranger they may refuse to tell what they serve.
func (s *Server) frontProxy() (cert, key []byte) {
	if s.cfg.FrontProxy.CertFile == "" {
		return nil, nil
	}
	cert, err := os.ReadFile(s.cfg.FrontProxy.CertFile)
	if err == nil {
		key, err = os.ReadFile(s.cfg.FrontProxy.KeyFile)
	}
	if err != nil {
		s.cfg.Log.ErrorContext(s.base, "certificate for aggregated api servers is unreadable", "error", err)
		return nil, nil
	}
	return cert, key
}

// publishAuth tells other API servers how to authenticate requests: whom the
// cluster's clients are signed by, and by which certificate and headers they
// know what this server passes on. An older cluster's word is brought up to date.
func (s *Server) publishAuth(ctx context.Context, client kubernetes.Interface) error {
	if len(s.cfg.ClientCAPEM) == 0 || s.resources["/configmaps"] == nil {
		return nil
	}
	want, err := s.authConfig()
	if err != nil {
		return err
	}
	have, err := s.peek("/configmaps", metav1.NamespaceSystem, bootstrap.AuthConfig)
	if err != nil {
		return err
	}
	configs := client.CoreV1().ConfigMaps(metav1.NamespaceSystem)
	old, ok := have.(*corev1.ConfigMap)
	if !ok {
		_, err := configs.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: bootstrap.AuthConfig}, Data: want,
		}, metav1.CreateOptions{})
		return existing(err)
	}
	up := old.DeepCopy()
	if up.Data == nil {
		up.Data = map[string]string{}
	}
	maps.Copy(up.Data, want)
	if maps.Equal(up.Data, old.Data) {
		return nil
	}
	if _, err = configs.Update(ctx, up, metav1.UpdateOptions{}); apierrors.IsConflict(err) {
		return nil // another peer was faster
	}
	return existing(err)
}

func (s *Server) authConfig() (map[string]string, error) {
	out := map[string]string{"client-ca-file": string(s.cfg.ClientCAPEM)}
	if len(s.cfg.FrontProxy.CAPEM) == 0 {
		return out, nil
	}
	out["requestheader-client-ca-file"] = string(s.cfg.FrontProxy.CAPEM)
	c := s.headers
	for key, values := range map[string]headerrequest.StringSliceProvider{
		"requestheader-allowed-names": c.AllowedClientNames, "requestheader-username-headers": c.UsernameHeaders,
		"requestheader-uid-headers": c.UIDHeaders, "requestheader-group-headers": c.GroupHeaders,
		"requestheader-extra-headers-prefix": c.ExtraHeaderPrefixes,
	} {
		text, err := json.Marshal(values.Value())
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", key, err)
		}
		out[key] = string(text)
	}
	return out, nil
}

// frontProxyName is the common name of this server's certificate towards others.
const frontProxyName = "front-proxy-client"
