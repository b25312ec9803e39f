package apiserver

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/rest"

	"skein.dev/skein/apiserver/podrest"
	"skein.dev/skein/apiserver/review"
)

type putStorage func(gv schema.GroupVersion, path string, st rest.Storage)

// addSubresources serves what is no kind and no plain subresource of one.
func (s *Server) addSubresources(put putStorage) error {
	for gv, all := range review.Storages(review.Config{
		Tokens: s.bearer, Audiences: []string{s.cfg.Issuer}, Authorizer: s.authz, Rules: s.rules,
	}) {
		for path, st := range all {
			put(gv, path, st)
		}
	}
	core := corev1.SchemeGroupVersion
	put(core, "componentstatuses", s.components())
	if r := s.resources["/services"]; r != nil {
		own, ok := r.Paths["services"].(standard)
		if !ok {
			return fmt.Errorf("services are served by a %T", r.Paths["services"])
		}
		s.allocate(r.Store)
		put(core, "services", &services{own})
		put(core, "services/proxy", podrest.ServiceProxy(proxyReader{reader{s}}))
	}
	if r := s.resources["/serviceaccounts"]; r != nil && s.tokens != nil {
		put(core, "serviceaccounts/token", &tokenREST{server: s})
	}
	if r := s.resources["/pods"]; r != nil {
		pods := &podrest.Pods{Store: r.Store, Node: reader{s}.Node, TLS: s.cfg.Kubelet.TLS, Port: s.cfg.Kubelet.Port}
		for path, st := range pods.Storages() {
			put(core, path, st)
		}
		eviction := &podrest.Eviction{Pods: r.Store, Version: policyv1.SchemeGroupVersion}
		if b := s.resources[policyv1.GroupName+"/poddisruptionbudgets"]; b != nil {
			eviction.Budgets = b.Store
		}
		put(core, "pods/eviction", eviction)
		if s.resources["/nodes"] != nil {
			put(core, "nodes/proxy", pods.NodeProxy())
		}
	}
	return nil
}
