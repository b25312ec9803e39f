package apiserver

import (
	"sync"
	"time"

	apiextensionshelpers "k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
)

// mapper names the resources of the kinds that policies take parameters from.
// What this server and custom resources serve it knows from the replica, at
// once; other servers it asks through discovery, and about what was not there
// again only after a while: policies that name nothing ask every second.
type mapper struct {
	meta.ResettableRESTMapper
	server *Server

	mu    sync.Mutex // guards the field below
	asked time.Time
}

// askAgain is how long discovery's answer is believed, as with upstream.
const askAgain = 30 * time.Second

// RESTMapping implements meta.RESTMapper.
func (m *mapper) RESTMapping(gk schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	for _, v := range versions {
		if found := m.server.mapping(gk.WithVersion(v)); found != nil {
			return found, nil
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	got, err := m.ResettableRESTMapper.RESTMapping(gk, versions...)
	if meta.IsNoMatchError(err) && time.Since(m.asked) > askAgain {
		m.asked = time.Now()
		m.Reset()
		got, err = m.ResettableRESTMapper.RESTMapping(gk, versions...)
	}
	return got, err
}

// mapping is that of a kind that this server declares or that a custom
// resource defines, nil for those of other servers.
func (s *Server) mapping(kind schema.GroupVersionKind) *meta.RESTMapping {
	of := func(resource string, namespaced bool) *meta.RESTMapping {
		m := &meta.RESTMapping{Resource: kind.GroupVersion().WithResource(resource), GroupVersionKind: kind, Scope: meta.RESTScopeRoot}
		if namespaced {
			m.Scope = meta.RESTScopeNamespace
		}
		return m
	}
	for i := range s.cfg.Kinds {
		k := &s.cfg.Kinds[i]
		if k.Kind != kind.Kind {
			continue
		}
		if k.Resource.GroupVersion() == kind.GroupVersion() {
			return of(k.Resource.Resource, k.Namespaced)
		}
		for _, v := range k.Versions {
			if v.Resource.GroupVersion() == kind.GroupVersion() {
				return of(v.Resource.Resource, k.Namespaced)
			}
		}
	}
	all, err := s.crds.List(labels.Everything())
	if err != nil {
		return nil
	}
	for _, crd := range all {
		if crd.Spec.Group == kind.Group && crd.Status.AcceptedNames.Kind == kind.Kind &&
			apiextensionshelpers.IsCRDConditionTrue(crd, apiextensionsv1.Established) && apiextensionshelpers.HasServedCRDVersion(crd, kind.Version) {
			return of(crd.Status.AcceptedNames.Plural, crd.Spec.Scope == apiextensionsv1.NamespaceScoped)
		}
	}
	return nil
}

// resourceOf names the resource of a kind, "" for those of other servers.
func (s *Server) resourceOf(kind schema.GroupVersionKind) string {
	if m := s.mapping(kind); m != nil {
		return m.Resource.Resource
	}
	return ""
}

// paramInformers is what policies get informers of their parameters from. They
// end them when no policy needs them any more and ask again when one does; an
// informer that has ended shows for ever what it has seen last, so each asking
// gets one of its own.
type paramInformers struct {
	informers.SharedInformerFactory
	make func() informers.SharedInformerFactory

	mu   sync.Mutex // guards the field below
	made []informers.SharedInformerFactory
}

// ForResource implements informers.SharedInformerFactory.
func (p *paramInformers) ForResource(gvr schema.GroupVersionResource) (informers.GenericInformer, error) {
	f := p.make()
	in, err := f.ForResource(gvr)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.made = append(p.made, f)
	return in, nil
}

// Start implements informers.SharedInformerFactory for what ForResource has
// made since the last time.
func (p *paramInformers) Start(stop <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.made {
		f.Start(stop)
	}
	p.made = nil
}
