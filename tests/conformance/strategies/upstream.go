package strategies

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/kubelet/client"
	admissionregistration "k8s.io/kubernetes/pkg/registry/admissionregistration/rest"
	apps "k8s.io/kubernetes/pkg/registry/apps/rest"
	autoscaling "k8s.io/kubernetes/pkg/registry/autoscaling/rest"
	batch "k8s.io/kubernetes/pkg/registry/batch/rest"
	certificates "k8s.io/kubernetes/pkg/registry/certificates/rest"
	coordination "k8s.io/kubernetes/pkg/registry/coordination/rest"
	configmap "k8s.io/kubernetes/pkg/registry/core/configmap/storage"
	endpoint "k8s.io/kubernetes/pkg/registry/core/endpoint/storage"
	event "k8s.io/kubernetes/pkg/registry/core/event/storage"
	limitrange "k8s.io/kubernetes/pkg/registry/core/limitrange/storage"
	namespace "k8s.io/kubernetes/pkg/registry/core/namespace/storage"
	node "k8s.io/kubernetes/pkg/registry/core/node/storage"
	pv "k8s.io/kubernetes/pkg/registry/core/persistentvolume/storage"
	pvc "k8s.io/kubernetes/pkg/registry/core/persistentvolumeclaim/storage"
	pod "k8s.io/kubernetes/pkg/registry/core/pod/storage"
	podtemplate "k8s.io/kubernetes/pkg/registry/core/podtemplate/storage"
	replicationcontroller "k8s.io/kubernetes/pkg/registry/core/replicationcontroller/storage"
	resourcequota "k8s.io/kubernetes/pkg/registry/core/resourcequota/storage"
	secret "k8s.io/kubernetes/pkg/registry/core/secret/storage"
	service "k8s.io/kubernetes/pkg/registry/core/service/storage"
	serviceaccount "k8s.io/kubernetes/pkg/registry/core/serviceaccount/storage"
	discovery "k8s.io/kubernetes/pkg/registry/discovery/rest"
	events "k8s.io/kubernetes/pkg/registry/events/rest"
	flowcontrol "k8s.io/kubernetes/pkg/registry/flowcontrol/rest"
	networking "k8s.io/kubernetes/pkg/registry/networking/rest"
	nodegroup "k8s.io/kubernetes/pkg/registry/node/rest"
	policy "k8s.io/kubernetes/pkg/registry/policy/rest"
	rbac "k8s.io/kubernetes/pkg/registry/rbac/rest"
	resource "k8s.io/kubernetes/pkg/registry/resource/rest"
	scheduling "k8s.io/kubernetes/pkg/registry/scheduling/rest"
	storage "k8s.io/kubernetes/pkg/registry/storage/rest"
	storagemigration "k8s.io/kubernetes/pkg/registry/storagemigration/rest"

	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/storage/memstore"
)

// storages are a version's REST storages by their paths, "pods/status".
type storages map[schema.GroupVersion]map[string]rest.Storage

// provider makes the storages of one group.
type provider interface {
	NewRESTStorage(serverstorage.APIResourceConfigSource, generic.RESTOptionsGetter) (genericapiserver.APIGroupInfo, error)
}

// stable serves the versions that are generally available.
type stable struct{}

// ResourceEnabled implements serverstorage.APIResourceConfigSource.
func (stable) ResourceEnabled(r schema.GroupVersionResource) bool {
	return !strings.Contains(r.Version, "alpha") && !strings.Contains(r.Version, "beta")
}

// ResourceExplicitlyEnabled implements serverstorage.APIResourceConfigSource.
func (stable) ResourceExplicitlyEnabled(schema.GroupVersionResource) bool { return false }

// VersionExplicitlyEnabled implements serverstorage.APIResourceConfigSource.
func (stable) VersionExplicitlyEnabled(schema.GroupVersion) bool { return false }

// AnyResourceForGroupEnabled implements serverstorage.APIResourceConfigSource.
func (stable) AnyResourceForGroupEnabled(string) bool { return true }

const eventTTL = time.Hour

// memory is where upstream's registries keep their objects, in their own
// versions.
func memory() generic.RESTOptionsGetter {
	return (&registry.Options{Store: memstore.New()}).Getter(func(r schema.GroupResource) (runtime.Codec, runtime.GroupVersioner) {
		versions := schema.GroupVersions(legacyscheme.Scheme.PrioritizedVersionsForGroup(r.Group))
		return legacyscheme.Codecs.LegacyCodec(versions...), versions
	})
}

// upstream makes Kubernetes' own storages.
func upstream() (storages, error) {
	out, kept := storages{}, memory()
	allow := authorizerfactory.NewAlwaysAllowAuthorizer()
	// Who may ask for admin access to devices is decided by admission with us:
	// here the namespace allows it.
	clients := fake.NewClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "default", Labels: map[string]string{resourcev1.DRAAdminNamespaceLabelKey: "true"},
	}})
	for _, p := range []provider{
		admissionregistration.RESTStorageProvider{}, apps.StorageProvider{}, autoscaling.RESTStorageProvider{},
		batch.RESTStorageProvider{}, certificates.RESTStorageProvider{Authorizer: allow}, coordination.RESTStorageProvider{},
		discovery.StorageProvider{}, events.RESTStorageProvider{TTL: eventTTL},
		flowcontrol.RESTStorageProvider{InformerFactory: informers.NewSharedInformerFactory(clients, 0)},
		networking.RESTStorageProvider{}, nodegroup.RESTStorageProvider{}, policy.RESTStorageProvider{},
		rbac.RESTStorageProvider{Authorizer: allow},
		resource.RESTStorageProvider{NamespaceClient: clients.CoreV1().Namespaces(), Authorizer: allow},
		scheduling.RESTStorageProvider{}, storage.RESTStorageProvider{}, storagemigration.RESTStorageProvider{},
	} {
		info, err := p.NewRESTStorage(stable{}, kept)
		if err != nil {
			return nil, fmt.Errorf("make storages of %T: %w", p, err)
		}
		for version, paths := range info.VersionedResourcesStorageMap {
			out[schema.GroupVersion{Group: info.PrioritizedVersions[0].Group, Version: version}] = paths
		}
	}
	paths, err := core(kept)
	out[schema.GroupVersion{Version: "v1"}] = paths
	return out, err
}

// core makes the storages of the old group; its own provider needs etcd.
func core(kept generic.RESTOptionsGetter) (map[string]rest.Storage, error) {
	allow := authorizerfactory.NewAlwaysAllowAuthorizer()
	out := map[string]rest.Storage{}
	var errs []error
	add := func(plural string, main, status rest.Storage, err error) {
		errs = append(errs, err)
		out[plural] = main
		if status != nil {
			out[plural+"/status"] = status
		}
	}
	one := func(plural string, main rest.Storage, err error) { add(plural, main, nil, err) }

	cm, err := configmap.NewREST(kept)
	one("configmaps", cm, err)
	sec, err := secret.NewREST(kept)
	one("secrets", sec, err)
	ep, err := endpoint.NewREST(kept)
	one("endpoints", ep, err)
	ev, err := event.NewREST(kept, uint64(eventTTL.Seconds()))
	one("events", ev, err)
	lr, err := limitrange.NewREST(kept)
	one("limitranges", lr, err)
	pt, err := podtemplate.NewREST(kept)
	one("podtemplates", pt, err)
	sa, err := serviceaccount.NewREST(kept, nil, nil, nil, 0, nil, nil, nil, nil, nil, false, 0)
	one("serviceaccounts", sa, err)
	rq, rqs, err := resourcequota.NewREST(kept)
	add("resourcequotas", rq, rqs, err)
	volume, volumeStatus, err := pv.NewREST(kept)
	add("persistentvolumes", volume, volumeStatus, err)
	claim, claimStatus, err := pvc.NewREST(kept)
	add("persistentvolumeclaims", claim, claimStatus, err)
	ns, nss, nsf, err := namespace.NewREST(kept)
	add("namespaces", ns, nss, err)
	out["namespaces/finalize"] = nsf
	rc, err := replicationcontroller.NewStorage(kept)
	add("replicationcontrollers", rc.Controller, rc.Status, err)
	out["replicationcontrollers/scale"] = rc.Scale
	nodes, err := node.NewStorage(kept, client.KubeletClientConfig{}, nil)
	errs = append(errs, err)
	pods, err := pod.NewStorage(kept, nil, nil, nil, allow)
	add("pods", pods.Pod, pods.Status, err)
	out["pods/resize"], out["pods/ephemeralcontainers"] = pods.Resize, pods.EphemeralContainers
	svc, svcs, _, err := service.NewREST(kept, "IPv4", nil, nil, nil, pods.Pod, nil)
	add("services", svc, svcs, err)
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("make storages of core: %w", err)
	}
	out["nodes"], out["nodes/status"] = nodes.Node, nodes.Status
	return out, nil
}

// storeOf finds the generic registry in a storage: every storage of a kind
// has one, if not always for others to see.
func storeOf(s rest.Storage) *genericregistry.Store {
	if s == nil {
		return nil
	}
	v := reflect.ValueOf(s)
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if store, ok := v.Interface().(*genericregistry.Store); ok {
			return store
		}
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct || !v.CanAddr() {
		return nil
	}
	for i := range v.NumField() {
		f := v.Field(i)
		if f.Type() == reflect.TypeFor[*genericregistry.Store]() {
			return *(**genericregistry.Store)(unsafe.Pointer(f.UnsafeAddr()))
		}
		if f.Kind() == reflect.Interface && v.Type().Field(i).Anonymous && !f.IsNil() {
			if inner, ok := reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem().Interface().(rest.Storage); ok {
				if store := storeOf(inner); store != nil {
					return store
				}
			}
		}
		if f.Kind() == reflect.Struct && v.Type().Field(i).Anonymous {
			if inner, ok := reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Interface().(rest.Storage); ok {
				if store := storeOf(inner); store != nil {
					return store
				}
			}
		}
	}
	return nil
}
