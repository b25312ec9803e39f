package dnsaddon

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/component"
	"skein.dev/skein/api/member"
)

// item is an object to look at: a service or a pod.
type item struct {
	pod bool
	key string // "namespace/name"
}

// feeder keeps the index in step with the informers. Its run is the index's
// one writer.
type feeder struct {
	peer     member.Name
	view     member.View
	index    *index
	services corelisters.ServiceLister
	pods     corelisters.PodLister
	slices   cache.Indexer
	synced   []cache.InformerSynced
	dirty    *component.Dirty[item]
}

func newFeeder(c Config, x *index) (*feeder, error) {
	svc := c.Kit.Informers.Core().V1().Services()
	pods := c.Kit.Informers.Core().V1().Pods()
	eps := c.Kit.Informers.Discovery().V1().EndpointSlices().Informer()
	f := &feeder{
		peer: c.Kit.Peer, view: c.View, index: x,
		services: svc.Lister(), pods: pods.Lister(), slices: eps.GetIndexer(),
		dirty: component.NewDirty[item](),
	}
	if err := component.IndexSlices(eps); err != nil {
		return nil, err
	}
	for _, in := range []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{svc.Informer(), f.handler(false, component.ObjectKey)},
		{eps, f.handler(false, component.ServiceKey)},
		{pods.Informer(), cache.FilteringResourceEventHandler{FilterFunc: f.isOurs, Handler: f.handler(true, component.ObjectKey)}},
	} {
		reg, err := in.informer.AddEventHandler(in.handler)
		if err != nil {
			return nil, fmt.Errorf("watch for names: %w", err)
		}
		f.synced = append(f.synced, reg.HasSynced)
	}
	return f, nil
}

// isOurs keeps the pods that may ask this peer: the cluster DNS address never
// leaves a machine.
func (f *feeder) isOurs(obj any) bool {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	p, ok := obj.(*corev1.Pod)
	return ok && p.Spec.NodeName == string(f.peer) && !p.Spec.HostNetwork
}

func (f *feeder) handler(pod bool, key func(any) string) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { f.add(item{pod, key(o)}) },
		UpdateFunc: func(old, o any) {
			if pod && samePod(old, o) {
				return
			}
			f.add(item{pod, key(o)})
			if before := key(old); before != key(o) {
				f.add(item{pod, before})
			}
		},
		DeleteFunc: func(o any) { f.add(item{pod, key(o)}) },
	}
}

func samePod(a, b any) bool {
	p, ok := a.(*corev1.Pod)
	q, also := b.(*corev1.Pod)
	return ok && also && slices.Equal(podAddrs(p), podAddrs(q))
}

// podAddrs are a pod's addresses while it may use them.
func podAddrs(p *corev1.Pod) []netip.Addr {
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return nil
	}
	var out []netip.Addr
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

func (f *feeder) add(i item) {
	if i.key != "" {
		f.dirty.Add(i)
	}
}

// run writes the index until ctx ends; it calls filled after each pass. The
// informers must have synced.
func (f *feeder) run(ctx context.Context, filled func()) error {
	dead := map[member.Name]bool{}
	podIPs := map[string][]netip.Addr{}
	// An earlier run may have ended half way through: look at everything.
	if err := f.markAll(); err != nil {
		return err
	}
	for {
		var members <-chan struct{}
		if f.view != nil {
			members = f.view.Changed()
			if now := deadPeers(f.view); !sameDead(now, dead) {
				dead = now
				if err := f.markAll(); err != nil {
					return err
				}
			}
		}
		for i := range f.dirty.Take() {
			var err error
			if i.pod {
				err = f.pod(i.key, podIPs)
			} else {
				err = f.service(i.key, dead)
			}
			if err != nil {
				return err
			}
		}
		filled()
		select {
		case <-ctx.Done():
			return nil
		case <-f.dirty.Wake():
		case <-members:
		}
	}
}

func deadPeers(v member.View) map[member.Name]bool {
	dead := map[member.Name]bool{}
	for _, m := range v.Peers() {
		if m.State == member.Dead {
			dead[m.Name] = true
		}
	}
	return dead
}

func (f *feeder) markAll() error {
	all, err := f.services.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	for _, s := range all {
		f.add(item{key: s.Namespace + "/" + s.Name})
	}
	pods, err := f.pods.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	for _, p := range pods {
		if f.isOurs(p) {
			f.add(item{pod: true, key: p.Namespace + "/" + p.Name})
		}
	}
	return nil
}

// service brings one service's entry up to date.
func (f *feeder) service(key string, dead map[member.Name]bool) error {
	namespace, name, _ := strings.Cut(key, "/")
	at := strings.ToLower(name + "." + namespace)
	svc, err := f.services.Services(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		f.index.put(at, strings.ToLower(namespace), nil)
		return nil
	}
	if err != nil {
		return fmt.Errorf("get service %s: %w", key, err)
	}
	eps, err := component.Slices(f.slices, key)
	if err != nil {
		return err
	}
	f.index.put(at, strings.ToLower(namespace), build(svc, eps, dead))
	return nil
}

// pod brings one pod's addresses up to date; known are those of all pods.
func (f *feeder) pod(key string, known map[string][]netip.Addr) error {
	namespace, name, _ := strings.Cut(key, "/")
	var addrs []netip.Addr
	p, err := f.pods.Pods(namespace).Get(name)
	switch {
	case err == nil && f.isOurs(p):
		addrs = podAddrs(p)
	case err != nil && !apierrors.IsNotFound(err):
		return fmt.Errorf("get pod %s: %w", key, err)
	}
	for _, a := range known[key] {
		if !slices.Contains(addrs, a) {
			f.index.removePod(a, key)
		}
	}
	for _, a := range addrs {
		f.index.setPod(a, key, namespace)
	}
	if len(addrs) == 0 {
		delete(known, key)
	} else {
		known[key] = addrs
	}
	return nil
}
