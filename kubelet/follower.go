package kubelet

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/kubelet/spec"
)

// Informers returns a factory for a kubelet that runs apart from a replica:
// its informers of pods and nodes hold only what the node may see, which is
// itself and what is bound to it. It goes with Config.Apart.
func Informers(client kubernetes.Interface, node string) informers.SharedInformerFactory {
	f := informers.NewSharedInformerFactory(client, 0)
	only := func(field string) func(*metav1.ListOptions) {
		return func(o *metav1.ListOptions) { o.FieldSelector = fields.OneTermEqualSelector(field, node).String() }
	}
	indexers := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
	// The first to ask for an informer decides how it is made.
	f.InformerFor(&corev1.Pod{}, func(c kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
		return coreinformers.NewFilteredPodInformer(c, metav1.NamespaceAll, resync, indexers, only("spec.nodeName"))
	})
	f.InformerFor(&corev1.Node{}, func(c kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
		return coreinformers.NewFilteredNodeInformer(c, resync, cache.Indexers{}, only(metav1.ObjectNameField))
	})
	return f
}

// object names a config map or secret.
type object struct {
	spec.Reference

	namespace string
}

// follower watches the config maps and secrets that pods of this node refer
// to, each by its name: the node authorizer allows no more.
type follower struct {
	client  kubernetes.Interface
	changed func(kind, namespace, name string)
	wg      sync.WaitGroup

	mu    sync.Mutex                      // guards the fields below
	begin func(object) context.CancelFunc // nil before Run
	users map[object]map[types.UID]bool
	stop  map[object]context.CancelFunc
}

func newFollower(c kubernetes.Interface, changed func(kind, namespace, name string)) *follower {
	return &follower{
		client: c, changed: changed, users: map[object]map[types.UID]bool{}, stop: map[object]context.CancelFunc{},
	}
}

// start lets watches begin, which end with ctx.
func (f *follower) start(ctx context.Context) {
	f.mu.Lock()
	f.begin = func(o object) context.CancelFunc {
		watchCtx, stop := context.WithCancel(ctx)
		f.wg.Go(func() { f.watch(watchCtx, o) })
		return stop
	}
	f.mu.Unlock()
}

// wait returns when ctx and all watches have ended.
func (f *follower) wait(ctx context.Context) {
	<-ctx.Done()
	f.mu.Lock()
	f.begin = nil
	f.mu.Unlock()
	f.wg.Wait()
}

// follow makes the follower watch what the pod refers to until drop is
// called for it. It does nothing before start and
// after wait.
func (f *follower) follow(pod *corev1.Pod) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.begin == nil {
		return
	}
	for r := range spec.References(pod) {
		o := object{r, pod.Namespace}
		if f.users[o] == nil {
			f.users[o] = map[types.UID]bool{}
			f.stop[o] = f.begin(o)
		}
		f.users[o][pod.UID] = true
	}
}

// drop ends the watches that only this pod needed.
func (f *follower) drop(uid types.UID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for o, users := range f.users {
		if delete(users, uid); len(users) == 0 {
			f.stop[o]()
			delete(f.users, o)
			delete(f.stop, o)
		}
	}
}

// watch tells of each change of one object until ctx ends.
func (f *follower) watch(ctx context.Context, o object) {
	tell := func(any) { f.changed(o.Kind, o.namespace, o.Name) }
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: f.listWatch(o), ObjectType: o.empty(),
		Handler: cache.ResourceEventHandlerFuncs{AddFunc: tell, UpdateFunc: func(_, obj any) { tell(obj) }, DeleteFunc: tell},
	})
	informer.RunWithContext(ctx)
}

// empty is an object of the kind.
func (o object) empty() runtime.Object {
	if o.Kind == spec.Secret {
		return &corev1.Secret{}
	}
	return &corev1.ConfigMap{}
}

func (f *follower) listWatch(o object) cache.ListerWatcher {
	name := fields.OneTermEqualSelector(metav1.ObjectNameField, o.Name).String()
	maps, secrets := f.client.CoreV1().ConfigMaps(o.namespace), f.client.CoreV1().Secrets(o.namespace)
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			opts.FieldSelector = name
			if o.Kind == spec.Secret {
				return secrets.List(ctx, opts)
			}
			return maps.List(ctx, opts)
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			opts.FieldSelector = name
			if o.Kind == spec.Secret {
				return secrets.Watch(ctx, opts)
			}
			return maps.Watch(ctx, opts)
		},
	}, f.client)
}
