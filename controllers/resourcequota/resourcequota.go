// Package resourcequota tells in each quota's status how much of it is used.
//
// Its invariant: what admission has booked for an object that does not exist
// yet is not given back because something else has come. Figures fall when
// something has gone, when the quota changed, and now and then for what was
// booked in vain; they rise for what admission let pass because its own peer
// did not know the quota yet.
package resourcequota

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	sums "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/component"
	"skein.dev/skein/api/quota"
	"skein.dev/skein/controllers/run"
)

const (
	// recount is how often what was booked in vain is found.
	recount = 5 * time.Minute
	// distant is how often kinds are counted that no informer delivers.
	distant = 20 * time.Second
)

// Controller reconciles ResourceQuotas.
type Controller struct {
	kit      component.Kit
	meta     metadata.Interface // nil: only kinds with an informer are counted
	quotas   corelisters.ResourceQuotaLister
	pods     corelisters.PodLister
	services corelisters.ServiceLister
	claims   corelisters.PersistentVolumeClaimLister // nil: not served
	others   map[string]cache.SharedIndexInformer    // by "resource.group"
	due      due
}

// New takes its informers from kit; serves tells which kinds there are.
func New(kit component.Kit, md metadata.Interface, serves func(schema.GroupResource) bool) (run.Controller, error) {
	core := kit.Informers.Core().V1()
	c := &Controller{
		kit: kit, meta: md, quotas: core.ResourceQuotas().Lister(), pods: core.Pods().Lister(), services: core.Services().Lister(),
		others: map[string]cache.SharedIndexInformer{}, due: due{keys: map[run.Key]counted{}},
	}
	pods, services := core.Pods().Informer(), core.Services().Informer()
	reads := []run.Source{
		{Informer: core.ResourceQuotas().Informer(), Changed: specChanged},
		{Informer: pods, Keys: c.touched(func(obj any) bool { return takes(pods, obj) }), Changed: podEnds},
		{Informer: services, Keys: c.touched(func(obj any) bool { return newest(services, obj) }), Changed: serviceChanged},
	}
	if serves(corev1.Resource("persistentvolumeclaims")) {
		c.claims = core.PersistentVolumeClaims().Lister()
		claims := core.PersistentVolumeClaims().Informer()
		reads = append(reads, run.Source{
			Informer: claims, Keys: c.touched(func(obj any) bool { return newest(claims, obj) }), Changed: specChanged,
		})
	}
	for name, get := range counters(kit.Informers) {
		if !serves(schema.ParseGroupResource(name)) {
			continue
		}
		inf := get()
		c.others[name] = inf
		reads = append(reads, run.Source{Informer: inf, Keys: c.touched(func(obj any) bool { return newest(inf, obj) }), Changed: never})
	}
	return run.Controller{
		Name: "resourcequota-controller", Reads: reads, Writes: []string{"resourcequotas/status"}, Workers: 4,
		Reconcile: c.reconcile, Reset: c.due.reset,
	}, nil
}

// counters are the informers of kinds that run anyway, by "resource.group".
func counters(f informers.SharedInformerFactory) map[string]func() cache.SharedIndexInformer {
	core, apps, batch := f.Core().V1(), f.Apps().V1(), f.Batch().V1()
	return map[string]func() cache.SharedIndexInformer{
		"configmaps":             core.ConfigMaps().Informer,
		"secrets":                core.Secrets().Informer,
		"replicationcontrollers": core.ReplicationControllers().Informer,
		"resourcequotas":         core.ResourceQuotas().Informer,
		"deployments.apps":       apps.Deployments().Informer,
		"replicasets.apps":       apps.ReplicaSets().Informer,
		"statefulsets.apps":      apps.StatefulSets().Informer,
		"daemonsets.apps":        apps.DaemonSets().Informer,
		"jobs.batch":             batch.Jobs().Informer,
		"cronjobs.batch":         batch.CronJobs().Informer,
	}
}

func never(any, any) bool { return false }

func specChanged(before, after any) bool {
	if a, ok := before.(*corev1.ResourceQuota); ok {
		b, ok := after.(*corev1.ResourceQuota)
		return !ok || !equality.Semantic.DeepEqual(a.Spec, b.Spec) || !equality.Semantic.DeepEqual(b.Spec.Hard, b.Status.Hard)
	}
	a, ok := before.(*corev1.PersistentVolumeClaim)
	b, ok2 := after.(*corev1.PersistentVolumeClaim)
	return !ok || !ok2 || !equality.Semantic.DeepEqual(a.Spec, b.Spec)
}

func serviceChanged(before, after any) bool {
	a, ok := before.(*corev1.Service)
	b, ok2 := after.(*corev1.Service)
	return !ok || !ok2 || a.Spec.Type != b.Spec.Type || len(a.Spec.Ports) != len(b.Spec.Ports)
}

func podEnds(before, after any) bool {
	a, ok := before.(*corev1.Pod)
	b, ok2 := after.(*corev1.Pod)
	return !ok || !ok2 || a.Status.Phase != b.Status.Phase || (a.DeletionTimestamp == nil) != (b.DeletionTimestamp == nil)
}

// touched maps an object to the quotas of its namespace. Where it does not say
// that the object has come and takes its part, they are counted whole.
func (c *Controller) touched(came func(obj any) bool) func(obj any) []run.Key {
	return func(obj any) []run.Key {
		keys := c.quotasOf(obj)
		if len(keys) > 0 && !came(obj) {
			c.due.lowered(keys)
		}
		return keys
	}
}

// takes reports whether a pod is there and charged for. Any version of it will
// do: it may be bound to a node before its arrival is looked at.
func takes(inf cache.SharedIndexInformer, obj any) bool {
	p, ok := obj.(*corev1.Pod)
	if !ok || p.DeletionTimestamp != nil || !quota.Charged(p, time.Now()) {
		return false
	}
	now, found, err := inf.GetIndexer().Get(obj)
	if err != nil || !found {
		return false
	}
	q, ok := now.(*corev1.Pod)
	return ok && q.UID == p.UID
}

// newest reports whether the object is there as it is.
func newest(inf cache.SharedIndexInformer, obj any) bool {
	now, found, err := inf.GetIndexer().Get(obj)
	if err != nil || !found {
		return false
	}
	a, err := meta.Accessor(now)
	b, err2 := meta.Accessor(obj)
	return err == nil && err2 == nil && a.GetUID() == b.GetUID() && a.GetResourceVersion() == b.GetResourceVersion()
}

// quotasOf are the quotas of an object's namespace.
func (c *Controller) quotasOf(obj any) []run.Key {
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil
	}
	all, err := c.quotas.ResourceQuotas(m.GetNamespace()).List(labels.Everything())
	if err != nil { // a lister over a store never fails
		return nil
	}
	return run.KeysOf(all)
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	q, err := c.quotas.ResourceQuotas(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		c.due.lowered([]run.Key{key}) // one of the name that comes later is another
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read quota: %w", err)
	}
	if !equality.Semantic.DeepEqual(q.Spec.Hard, q.Status.Hard) {
		c.due.lowered([]run.Key{key})
	}
	every := c.every(q)
	todo, wait := c.due.begin(key, time.Now(), every)
	if todo == later {
		return wait, nil
	}
	in, err := c.objects(ctx, q)
	if err != nil {
		c.due.lowered([]run.Key{key})
		return 0, err
	}
	used := quota.Used(q, in, time.Now())
	if todo == raise {
		used = sums.Max(used, q.Status.Used)
	}
	if equality.Semantic.DeepEqual(q.Spec.Hard, q.Status.Hard) && sums.Equals(used, q.Status.Used) {
		return every, nil
	}
	up := q.DeepCopy()
	up.Status = corev1.ResourceQuotaStatus{Hard: q.Spec.Hard.DeepCopy(), Used: used}
	_, err = c.kit.Client.CoreV1().ResourceQuotas(q.Namespace).UpdateStatus(ctx, up, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		c.due.lowered([]run.Key{key})
		return 0, fmt.Errorf("update quota status: %w", err)
	}
	return every, nil
}

// every is the longest time between two whole counts of the quota.
func (c *Controller) every(q *corev1.ResourceQuota) time.Duration {
	for _, name := range quota.Counted(q) {
		if _, ok := c.others[name]; !ok {
			return distant
		}
	}
	return recount
}

// objects collects what the quota may speak of.
func (c *Controller) objects(ctx context.Context, q *corev1.ResourceQuota) (quota.Objects, error) {
	in := quota.Objects{Counts: map[string]int{}}
	var err error
	if in.Pods, err = c.pods.Pods(q.Namespace).List(labels.Everything()); err != nil {
		return in, fmt.Errorf("list pods: %w", err)
	}
	if in.Services, err = c.services.Services(q.Namespace).List(labels.Everything()); err != nil {
		return in, fmt.Errorf("list services: %w", err)
	}
	if c.claims != nil {
		if in.Claims, err = c.claims.PersistentVolumeClaims(q.Namespace).List(labels.Everything()); err != nil {
			return in, fmt.Errorf("list claims: %w", err)
		}
	}
	for _, name := range quota.Counted(q) {
		if inf, ok := c.others[name]; ok {
			there, err := inf.GetIndexer().IndexKeys(cache.NamespaceIndex, q.Namespace)
			if err != nil {
				return in, fmt.Errorf("count %s: %w", name, err)
			}
			in.Counts[name] = len(there)
			continue
		}
		n, err := c.ask(ctx, q.Namespace, name)
		if err != nil {
			return in, err
		}
		in.Counts[name] = n
	}
	return in, nil
}

// ask counts objects of a kind without an informer.
func (c *Controller) ask(ctx context.Context, namespace, name string) (int, error) {
	if c.meta == nil {
		return 0, nil
	}
	groups, err := restmapper.GetAPIGroupResources(c.kit.Client.Discovery())
	if err != nil {
		return 0, fmt.Errorf("discover kinds: %w", err)
	}
	gvr, err := restmapper.NewDiscoveryRESTMapper(groups).ResourceFor(schema.ParseGroupResource(name).WithVersion(""))
	if meta.IsNoMatchError(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("find kind %s: %w", name, err)
	}
	l, err := c.meta.Resource(gvr).Namespace(namespace).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", name, err)
	}
	return len(l.Items), nil
}
