// Package sched gives every pod a node.
//
// Its invariant: a decision is made on an immutable snapshot that contains
// all earlier decisions of this holder, and every binding carries the fence
// of the epoch under which it was decided.
package sched

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	policylisters "k8s.io/client-go/listers/policy/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/component"
	"skein.dev/skein/api/role"
)

// Config wires a Scheduler.
type Config struct {
	Kit component.Kit
	// Name is the schedulerName whose pods are ours; "": default-scheduler.
	Name string
	// Volumes makes claims count: the API must serve persistent volumes,
	// their claims and storage classes. Without it pods are placed as if
	// they had no claims.
	Volumes bool
	// MinRevision tells the revision of a fence's assignment, which the local
	// replica has applied already; the first decision waits until every
	// informer shows it, but no longer than two seconds, because the informer
	// of a kind that nobody writes learns of revisions only by bookmarks. Nil
	// or 0: the informers' first sync is enough.
	MinRevision func(role.Fence) uint64
	// Binds is how many bindings may be under way at once; 0 means 32.
	Binds int
}

// Scheduler decides and binds while its role is held.
type Scheduler struct {
	cfg        Config
	pods       cache.SharedIndexInformer
	nodes      cache.SharedIndexInformer
	namespaces cache.SharedIndexInformer
	budgetInf  cache.SharedIndexInformer
	disruption policylisters.PodDisruptionBudgetLister
	volumes    *volumeSource // nil: claims do not count
	seed       maphash.Seed
}

// volumeSource reads what claims are bound to.
type volumeSource struct {
	informers []cache.SharedIndexInformer
	claims    corelisters.PersistentVolumeClaimLister
	volumes   corelisters.PersistentVolumeLister
	classes   storagelisters.StorageClassLister
}

// Heartbeat is the longest pause between two calls of progress.
const Heartbeat = 400 * time.Millisecond

// New takes its informers from the kit; the caller starts the factory
// afterwards.
func New(cfg Config) (*Scheduler, error) {
	kit := cfg.Kit
	if kit.Client == nil || kit.Informers == nil || kit.Recorder == nil || kit.Log == nil {
		return nil, errors.New("scheduler: a complete kit is required")
	}
	if cfg.Name == "" {
		cfg.Name = corev1.DefaultSchedulerName
	}
	if cfg.Binds == 0 {
		cfg.Binds = 32
	}
	core, budgets := kit.Informers.Core().V1(), kit.Informers.Policy().V1().PodDisruptionBudgets()
	s := &Scheduler{
		cfg: cfg, seed: maphash.MakeSeed(),
		pods: core.Pods().Informer(), nodes: core.Nodes().Informer(), namespaces: core.Namespaces().Informer(),
		budgetInf: budgets.Informer(), disruption: budgets.Lister(),
	}
	if cfg.Volumes {
		classes := kit.Informers.Storage().V1().StorageClasses()
		s.volumes = &volumeSource{
			informers: []cache.SharedIndexInformer{
				core.PersistentVolumeClaims().Informer(), core.PersistentVolumes().Informer(), classes.Informer(),
			},
			claims: core.PersistentVolumeClaims().Lister(), volumes: core.PersistentVolumes().Lister(), classes: classes.Lister(),
		}
	}
	return s, nil
}

func (s *Scheduler) sources() []cache.SharedIndexInformer {
	all := []cache.SharedIndexInformer{s.pods, s.nodes, s.namespaces, s.budgetInf}
	if s.volumes != nil {
		all = append(all, s.volumes.informers...)
	}
	return all
}

// Run schedules under the fence until ctx ends and returns nil; none of its
// goroutines survives it. progress (may be nil) is called at least every
// Heartbeat as long as decisions go on. An error means that the role had
// better move. Run may be called again for a later epoch.
func (s *Scheduler) Run(ctx context.Context, fence role.Fence, progress func()) error {
	if progress == nil {
		progress = func() {}
	}
	ctx = role.With(ctx, fence)
	if !s.await(ctx, fence, progress) {
		return nil
	}
	r := newRound(s, progress)
	defer r.binds.Wait()
	undo, err := r.follow(ctx)
	defer undo()
	if err != nil {
		return fmt.Errorf("follow the cluster: %w", err)
	}
	s.cfg.Kit.Log.InfoContext(ctx, "scheduler starts", "fence", fence.String(), "nodes", len(s.nodes.GetStore().ListKeys()))
	r.loop(ctx)
	return nil
}

// catchUp is how long informers that have synced may take to show a revision
// that the replica they read has applied.
const catchUp = 2 * time.Second

// await blocks until the informers have synced and have reached the fence's
// revision or have had time to; false: ctx has ended.
func (s *Scheduler) await(ctx context.Context, fence role.Fence, progress func()) bool {
	var rev uint64
	if s.cfg.MinRevision != nil {
		rev = s.cfg.MinRevision(fence)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var since time.Time
	for i := 0; ; i++ {
		synced, shown := true, true
		for _, inf := range s.sources() {
			n, err := strconv.ParseUint(inf.GetIndexer().LastStoreSyncResourceVersion(), 10, 64)
			synced = synced && inf.HasSynced()
			shown = shown && (rev == 0 || (err == nil && n >= rev))
		}
		if synced && since.IsZero() {
			since = time.Now()
		}
		if synced && (shown || time.Since(since) > catchUp) {
			return true
		}
		if i%10 == 0 {
			progress()
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}
