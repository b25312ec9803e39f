package apiserver

import (
	"iter"
	"reflect"
	"time"

	apiextensionshelpers "k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/apps"
	"k8s.io/client-go/informers/autoscaling"
	"k8s.io/client-go/informers/batch"
	"k8s.io/client-go/informers/coordination"
	"k8s.io/client-go/informers/core"
	"k8s.io/client-go/informers/discovery"
	"k8s.io/client-go/informers/flowcontrol"
	"k8s.io/client-go/informers/internalinterfaces"
	"k8s.io/client-go/informers/networking"
	"k8s.io/client-go/informers/node"
	"k8s.io/client-go/informers/policy"
	"k8s.io/client-go/informers/rbac"
	"k8s.io/client-go/informers/scheduling"
	"k8s.io/client-go/informers/storage"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/store"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/replica"
)

// Informers returns a factory whose informers of this server's kinds read the
// replica itself: no request, no encoding, and the very objects that all other
// readers share, which nobody may change. Other kinds go through client.
// An informer exists once somebody has asked for it.
func (s *Server) Informers(client kubernetes.Interface) informers.SharedInformerFactory {
	f := &factory{
		SharedInformerFactory: informers.NewSharedInformerFactory(client, 0), server: s,
		known: map[reflect.Type]*registry.Resource{},
	}
	for _, r := range s.resources {
		f.known[reflect.TypeOf(r.Kind.New())] = r
	}
	return f
}

// factory makes the informers of known types read the replica. The groups'
// accessors are overridden because each hands its factory on.
type factory struct {
	informers.SharedInformerFactory

	server *Server
	known  map[reflect.Type]*registry.Resource
}

// InformerFor implements informers.SharedInformerFactory.
func (f *factory) InformerFor(obj runtime.Object, make internalinterfaces.NewInformerFunc) cache.SharedIndexInformer {
	r := f.known[reflect.TypeOf(obj)]
	if r == nil {
		return f.SharedInformerFactory.InformerFor(obj, make)
	}
	return f.SharedInformerFactory.InformerFor(obj, func(kubernetes.Interface, time.Duration) cache.SharedIndexInformer {
		return f.server.hub.Informer(f.server.kind(r))
	})
}

// Apps implements informers.SharedInformerFactory, as the others below do.
func (f *factory) Apps() apps.Interface { return apps.New(f, metav1.NamespaceAll, nil) }

// Autoscaling is one of the groups.
func (f *factory) Autoscaling() autoscaling.Interface {
	return autoscaling.New(f, metav1.NamespaceAll, nil)
}

// Batch is one of the groups.
func (f *factory) Batch() batch.Interface { return batch.New(f, metav1.NamespaceAll, nil) }

// Coordination is one of the groups.
func (f *factory) Coordination() coordination.Interface {
	return coordination.New(f, metav1.NamespaceAll, nil)
}

// Core is one of the groups.
func (f *factory) Core() core.Interface { return core.New(f, metav1.NamespaceAll, nil) }

// Discovery is one of the groups.
func (f *factory) Discovery() discovery.Interface { return discovery.New(f, metav1.NamespaceAll, nil) }

// Flowcontrol is one of the groups.
func (f *factory) Flowcontrol() flowcontrol.Interface {
	return flowcontrol.New(f, metav1.NamespaceAll, nil)
}

// Networking is one of the groups.
func (f *factory) Networking() networking.Interface {
	return networking.New(f, metav1.NamespaceAll, nil)
}

// Node is one of the groups.
func (f *factory) Node() node.Interface { return node.New(f, metav1.NamespaceAll, nil) }

// Policy is one of the groups.
func (f *factory) Policy() policy.Interface { return policy.New(f, metav1.NamespaceAll, nil) }

// Rbac is one of the groups.
func (f *factory) Rbac() rbac.Interface { return rbac.New(f, metav1.NamespaceAll, nil) }

// Scheduling is one of the groups.
func (f *factory) Scheduling() scheduling.Interface {
	return scheduling.New(f, metav1.NamespaceAll, nil)
}

// Storage is one of the groups.
func (f *factory) Storage() storage.Interface { return storage.New(f, metav1.NamespaceAll, nil) }

// ForResource implements informers.SharedInformerFactory.
func (f *factory) ForResource(gvr schema.GroupVersionResource) (informers.GenericInformer, error) {
	r := f.server.resources[gvr.Group+"/"+gvr.Resource]
	if r == nil || r.Kind.Resource.Version != gvr.Version {
		return f.SharedInformerFactory.ForResource(gvr)
	}
	return ofReplica{f.InformerFor(r.Kind.New(), nil), gvr.GroupResource()}, nil
}

// ofReplica implements informers.GenericInformer.
type ofReplica struct {
	informer cache.SharedIndexInformer
	resource schema.GroupResource
}

// Informer implements informers.GenericInformer.
func (g ofReplica) Informer() cache.SharedIndexInformer { return g.informer }

// Lister implements informers.GenericInformer.
func (g ofReplica) Lister() cache.GenericLister {
	return cache.NewGenericLister(g.informer.GetIndexer(), g.resource)
}

// kind says where the objects of r are.
func (s *Server) kind(r *registry.Resource) replica.Kind {
	name, prefix := r.Kind.Resource.GroupResource().String(), r.Keep.Keys("")
	if r.Kind.Thin {
		return replica.Kind{
			Name: name, Prefix: prefix,
			Read: func(e *store.Entry) (runtime.Object, error) { return r.Keep.Read(s.base, e) },
			Told: func(e *store.Event) (runtime.Object, error) { return r.Keep.ReadTold(s.base, e) },
		}
	}
	return replica.Kind{
		Name: name, Prefix: prefix,
		Each: func(v store.View) iter.Seq[runtime.Object] { return r.Keep.Each(s.base, v, "") },
		Told: func(e *store.Event) (runtime.Object, error) { return r.Keep.Told(s.base, e) },
	}
}

// MetadataInformer returns an informer of the metadata of a resource, as
// *metav1.PartialObjectMetadata whose first level is the reader's own; nil for
// what other servers keep, and for custom resources that are not defined yet.
// It reads the replica as those of [Server.Informers] do, holds no objects, and
// its user runs it.
func (s *Server) MetadataInformer(gvr schema.GroupVersionResource) cache.SharedIndexInformer {
	kind := s.keptKind(gvr)
	if kind == "" {
		return nil
	}
	m := s.kept.Metadata(gvr.GroupResource(), metav1.TypeMeta{APIVersion: gvr.GroupVersion().String(), Kind: kind})
	return s.hub.Informer(replica.Kind{
		Name: gvr.GroupResource().String(), Prefix: m.Keys(),
		Read: func(e *store.Entry) (runtime.Object, error) { return m.Read(s.base, e) },
		Told: func(e *store.Event) (runtime.Object, error) { return m.Told(s.base, e) },
	})
}

// keptKind is the kind of a resource that is kept in the store, or empty.
func (s *Server) keptKind(gvr schema.GroupVersionResource) string {
	if r := s.resources[gvr.Group+"/"+gvr.Resource]; r != nil {
		return r.Kind.Kind
	}
	switch gvr.GroupResource().String() { // of the chained servers
	case "customresourcedefinitions.apiextensions.k8s.io":
		return "CustomResourceDefinition"
	case "apiservices.apiregistration.k8s.io":
		return "APIService"
	}
	crd, err := s.crds.Get(gvr.GroupResource().String())
	if err != nil || !apiextensionshelpers.IsCRDConditionTrue(crd, apiextensionsv1.Established) ||
		!apiextensionshelpers.HasServedCRDVersion(crd, gvr.Version) {
		return ""
	}
	return crd.Status.AcceptedNames.Kind
}

// Rest forgets what only requests have had decoded: a server that has nothing
// to do needs it no more. Who reads on has it decoded again.
func (s *Server) Rest() {
	for _, r := range s.resources {
		if r.Kind.Thin {
			r.Keep.Forget(s.cfg.Store.Local())
		}
	}
}
