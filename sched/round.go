package sched

import (
	"context"
	"fmt"
	"hash/maphash"
	"runtime/debug"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"skein.dev/skein/sched/decide"
)

// crashBudget is how often deciding one pod may panic before it is left alone.
const crashBudget = 3

// round is the scheduler's state during one Run.
type round struct {
	s        *Scheduler
	progress func()
	wakeup   chan struct{} // 1 deep: something was queued
	slots    chan struct{} // one per binding under way
	binds    sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	queue   *queue
	cluster *decide.Cluster
	assumed map[types.UID]bool // bound by us, not yet seen as bound
	cycle   uint64
}

func newRound(s *Scheduler, progress func()) *round {
	return &round{
		s: s, progress: progress,
		wakeup: make(chan struct{}, 1), slots: make(chan struct{}, s.cfg.Binds),
		queue: newQueue(), cluster: decide.NewCluster(), assumed: map[types.UID]bool{},
	}
}

// nudge wakes the loop.
func (r *round) nudge() {
	select {
	case r.wakeup <- struct{}{}:
	default:
	}
}

// loop takes one pod after the other; decisions are strictly in order, only
// bindings overlap.
func (r *round) loop(ctx context.Context) {
	flush := time.NewTicker(30 * time.Second)
	defer flush.Stop()
	for ctx.Err() == nil {
		r.progress()
		r.mu.Lock()
		it, wait := r.queue.pop(time.Now())
		var snap *decide.Snapshot
		var pod *decide.Prepared
		var cycle uint64
		if it != nil {
			snap, pod = r.cluster.Snapshot(), it.pod
			r.cycle++
			cycle = r.cycle
		}
		r.mu.Unlock()
		if it != nil {
			r.one(ctx, it, pod, snap, cycle)
			continue
		}
		if wait <= 0 || wait > Heartbeat {
			wait = Heartbeat
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-r.wakeup:
		case <-timer.C:
		case now := <-flush.C:
			r.mu.Lock()
			r.queue.flush(now)
			r.mu.Unlock()
		}
		timer.Stop()
	}
}

// one decides a pod and starts its binding, or says why it has to wait.
func (r *round) one(ctx context.Context, it *item, pod *decide.Prepared, snap *decide.Snapshot, cycle uint64) {
	pending, blocked := r.s.claims(pod)
	d, err := r.decide(pod, snap, cycle, blocked)
	if err != nil {
		r.crashed(ctx, it, pod, err)
		return
	}
	if d.Node == "" {
		r.refused(ctx, it, pod, r.makeRoom(ctx, pod, snap, d))
		return
	}
	if len(pending) > 0 {
		n := snap.Node(d.Node)
		r.beside(ctx, func() { r.settle(ctx, it, pod, n, pending) })
		return
	}
	placed := *pod
	placed.Object = pod.Object.DeepCopy()
	placed.Object.Spec.NodeName = d.Node
	r.mu.Lock()
	if r.queue.items[pod.Object.UID] != it { // deleted meanwhile
		r.mu.Unlock()
		return
	}
	r.cluster.Forget(pod.Object.UID)
	r.cluster.SetPod(d.Node, &placed)
	r.assumed[pod.Object.UID] = true
	r.mu.Unlock()
	r.beside(ctx, func() { r.bind(ctx, it, pod.Object, d.Node) })
}

// decide guards against a pod that crashes a rule.
func (r *round) decide(pod *decide.Prepared, snap *decide.Snapshot, cycle uint64, blocked string) (d decide.Decision, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("decide pod: panic: %v\n%s", p, debug.Stack())
		}
	}()
	if blocked != "" {
		return decide.Decision{Blocked: blocked, Nodes: snap.Len()}, nil
	}
	return decide.Pod(snap, pod, maphash.Comparable(r.s.seed, cycle)), nil
}

func (r *round) crashed(ctx context.Context, it *item, pod *decide.Prepared, err error) {
	it.crashes++
	r.s.cfg.Kit.Log.ErrorContext(ctx, "deciding a pod panicked", "pod", name(pod.Object), "crashes", it.crashes, "err", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	if it.crashes < crashBudget {
		r.queue.retry(it, time.Now())
		return
	}
	r.queue.remove(pod.Object.UID) // parked until it changes or the role moves
	r.s.cfg.Kit.Recorder.Eventf(pod.Object, nil, corev1.EventTypeWarning, "FailedScheduling", "Scheduling",
		"The scheduler crashed on this pod %d times and leaves it alone until it changes", crashBudget)
}

func name(p *corev1.Pod) string { return p.Namespace + "/" + p.Name }
