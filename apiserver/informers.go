package apiserver

import (
	"context"
	"reflect"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	kstorage "k8s.io/apiserver/pkg/storage"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/apps"
	"k8s.io/client-go/informers/autoscaling"
	"k8s.io/client-go/informers/batch"
	"k8s.io/client-go/informers/coordination"
	"k8s.io/client-go/informers/core"
	"k8s.io/client-go/informers/discovery"
	"k8s.io/client-go/informers/internalinterfaces"
	"k8s.io/client-go/informers/networking"
	"k8s.io/client-go/informers/node"
	"k8s.io/client-go/informers/policy"
	"k8s.io/client-go/informers/rbac"
	"k8s.io/client-go/informers/scheduling"
	"k8s.io/client-go/informers/storage"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/apiserver/registry"
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
		return cache.NewSharedIndexInformer(f.server.listWatch(r), obj, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
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

func (s *Server) listWatch(r *registry.Resource) cache.ListerWatcher {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(_ context.Context, o metav1.ListOptions) (runtime.Object, error) { return s.list(r, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return s.watch(ctx, r, o)
		},
	}
	return replicaListWatch{lw}
}

type replicaListWatch struct{ *cache.ListWatch }

// IsWatchListSemanticsUnSupported tells the reflector to list: that costs
// nothing here.
func (replicaListWatch) IsWatchListSemanticsUnSupported() bool { return true }

func (s *Server) list(r *registry.Resource, o metav1.ListOptions) (runtime.Object, error) {
	view := s.cfg.Store.Local()
	if rv := o.ResourceVersion; rv != "" && rv != "0" {
		// A relist after a lost watch must not go back in time; it cannot,
		// because the replica never does.
		if want, err := r.Keep.Versioner().ParseResourceVersion(rv); err == nil && want > uint64(view.Revision()) {
			return nil, kstorage.NewTooLargeResourceVersionError(want, uint64(view.Revision()), 1)
		}
	}
	var all []runtime.Object
	for obj := range r.Keep.Each(s.base, view, "") {
		all = append(all, obj)
	}
	list := &metav1.List{}
	list.ResourceVersion = strconv.FormatInt(int64(view.Revision()), 10)
	for _, obj := range all {
		list.Items = append(list.Items, runtime.RawExtension{Object: obj})
	}
	return list, nil
}

func (s *Server) watch(ctx context.Context, r *registry.Resource, o metav1.ListOptions) (watch.Interface, error) {
	if o.SendInitialEvents != nil && *o.SendInitialEvents {
		return nil, apierrors.NewInvalid(r.Kind.Resource.GroupVersion().WithKind(r.Kind.Kind).GroupKind(), "", nil)
	}
	pred := kstorage.SelectionPredicate{
		Label: labels.Everything(), Field: fields.Everything(), GetAttrs: kstorage.DefaultClusterScopedAttr, AllowWatchBookmarks: true,
	}
	return r.Keep.Follow(ctx, kstorage.ListOptions{ResourceVersion: o.ResourceVersion, Predicate: pred, Recursive: true})
}
