package kubelet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/kubelet/cgroup"
	"skein.dev/skein/kubelet/cri"
	"skein.dev/skein/kubelet/spec"
	"skein.dev/skein/kubelet/volume"
)

// Kubelet runs this node's pods.
type Kubelet struct {
	cfg     Config
	log     *slog.Logger
	runtime *cri.Client
	volumes *volume.Set
	objects *objects
	status  *statusWriter
	node    *nodeKeeper
	pulls   *puller
	trust   *certificates
	room    *room

	podLister     listers.PodLister
	serviceLister listers.ServiceLister
	synced        []cache.InformerSynced
	handlers      []registration
	follower      *follower // nil unless the kubelet runs apart

	cgroups  *cgroup.Tree // set by Run, before any worker
	resolver spec.Resolver
	memory   int64

	admitting sync.Mutex // held while one pod is looked at

	mu      sync.Mutex // guards the fields below
	workers map[types.UID]*worker
	begin   func(*worker) // runs a worker; nil before and after Run
}

type registration struct {
	informer cache.SharedIndexInformer
	handle   cache.ResourceEventHandlerRegistration
}

// New checks the configuration and takes its informers. Run does the rest.
func New(cfg Config) (*Kubelet, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	k := &Kubelet{cfg: cfg, log: cfg.Kit.Log, workers: map[types.UID]*worker{}}
	runtime, err := cri.Open(cfg.CRIEndpoint, cfg.NodeName)
	if err != nil {
		return nil, err
	}
	k.runtime = runtime
	k.objects = &objects{client: cfg.Kit.Client}
	k.node = newNodeKeeper(&k.cfg, runtime)
	k.trust = newCertificates(&k.cfg, k.trustChanged)
	k.volumes, err = volume.New(volume.Config{
		Root: cfg.podsDir(), Objects: k.objects, Certificates: k.trust, Allocatable: k.node.allocatable, Log: k.log,
	})
	if err != nil {
		return nil, err
	}
	k.pulls = newPuller(runtime, k.objects)
	if k.room, err = newRoom(k); err != nil {
		return nil, err
	}
	k.node.room = k.room
	core := cfg.Kit.Informers.Core().V1()
	k.podLister, k.serviceLister = core.Pods().Lister(), core.Services().Lister()
	k.status = newStatusWriter(cfg.Kit.Client, k.podLister, k.log)
	k.node.lister = core.Nodes().Lister()
	if cfg.Apart {
		k.follower = newFollower(cfg.Kit.Client, k.objectChanged)
	}
	return k, k.watch()
}

// watch registers the handlers.
func (k *Kubelet) watch() error {
	core := k.cfg.Kit.Informers.Core().V1()
	type watched struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}
	all := []watched{
		{core.Pods().Informer(), k.podHandler()},
		{core.Nodes().Informer(), k.node.handler()},
		{core.Services().Informer(), nil},
	}
	if !k.cfg.Apart {
		all = append(all, watched{core.ConfigMaps().Informer(), k.objectHandler(spec.ConfigMap)},
			watched{core.Secrets().Informer(), k.objectHandler(spec.Secret)})
	}
	for _, h := range all {
		k.synced = append(k.synced, h.informer.HasSynced)
		if h.handler == nil {
			continue
		}
		r, err := h.informer.AddEventHandler(h.handler)
		if err != nil {
			return fmt.Errorf("watch for the kubelet: %w", err)
		}
		k.synced = append(k.synced, r.HasSynced)
		k.handlers = append(k.handlers, registration{h.informer, r})
	}
	return nil
}

// Run registers the node and runs its pods until ctx ends; the containers
// stay. It returns an error when it cannot begin or the node API fails.
func (k *Kubelet) Run(ctx context.Context) error {
	defer func() { _ = k.runtime.Close() }() // a connection; nothing is lost
	if err := k.prepare(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer k.unwatch()
	wg.Go(func() { k.node.run(ctx) })
	if k.cfg.Listen != "-" {
		wg.Go(func() {
			if err := k.serve(ctx); err != nil {
				cancel(err)
			}
		})
	}
	if !cache.WaitForCacheSync(ctx.Done(), k.synced...) {
		return cause(ctx)
	}
	wg.Go(func() { k.status.run(ctx) })
	if k.follower != nil {
		k.follower.start(ctx)
		wg.Go(func() { k.follower.wait(ctx) })
	}
	k.startWorkers(ctx, &wg)
	events, state := make(chan types.UID), make(chan bool)
	wg.Go(func() { k.stream(ctx, events, state) })
	wg.Go(func() { k.follow(ctx, events, state) })
	wg.Go(func() { k.rotateLogs(ctx) })
	wg.Go(func() { k.trust.run(ctx) })
	<-ctx.Done()
	k.mu.Lock()
	k.begin = nil
	k.mu.Unlock()
	return cause(ctx)
}

// cause is nil for an ordinary end.
func cause(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

func (k *Kubelet) unwatch() {
	for _, h := range k.handlers {
		_ = h.informer.RemoveEventHandler(h.handle) // an informer that has stopped has no handlers
	}
}

// prepare reads the node and makes the directories.
func (k *Kubelet) prepare() error {
	for _, dir := range []string{k.cfg.RootDir, k.cfg.podsDir(), k.cfg.LogDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	tree, err := cgroup.Open(k.cfg.CgroupRoot)
	if err != nil {
		return err
	}
	k.cgroups = tree
	k.resolver = spec.Resolver{Domain: k.cfg.ClusterDomain}
	for _, ip := range k.cfg.ClusterDNS {
		k.resolver.Cluster = append(k.resolver.Cluster, ip.String())
	}
	f, err := os.Open(k.cfg.ResolvConf)
	if err == nil {
		k.resolver.Host, err = spec.ParseResolvConf(f)
		err = errors.Join(err, f.Close())
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read %s: %w", k.cfg.ResolvConf, err)
	}
	capacity := k.node.capacity()
	k.memory = capacity.Memory().Value()
	return k.ensureClasses(nil)
}

// specNode is the node as rendering needs it.
func (k *Kubelet) specNode() spec.Node {
	return spec.Node{
		Name: k.cfg.NodeName, Resolver: k.resolver, CgroupRoot: k.cfg.CgroupRoot, Unified: k.cgroups.Unified(),
		Memory: k.memory, LogDir: k.cfg.LogDir, SeccompRoot: filepath.Join(k.cfg.RootDir, "seccomp"),
	}
}

// Clean removes the kubelet's cgroups and mounts. It is for a node whose
// containers have been removed; it leaves what still has processes.
func (k *Kubelet) Clean(context.Context) error {
	tree, err := cgroup.Open(k.cfg.CgroupRoot)
	if err != nil {
		return err
	}
	uids, err := k.volumes.Pods()
	for _, uid := range uids {
		err = errors.Join(err, k.volumes.Remove(uid))
	}
	return errors.Join(err, tree.Remove(filepath.Join("/", k.cfg.CgroupRoot, "kubepods")))
}

// mine reports whether the pod is bound to this node.
func (k *Kubelet) mine(pod *corev1.Pod) bool { return pod.Spec.NodeName == k.cfg.NodeName }
