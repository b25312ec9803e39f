package sched

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/sched/decide"
)

// follow feeds the cluster's changes into the round and returns when all that
// exists has been fed. undo must be called in any case.
func (r *round) follow(ctx context.Context) (undo func(), err error) {
	var undos []func()
	undo = func() {
		for _, f := range undos {
			f()
		}
	}
	var regs []cache.ResourceEventHandlerRegistration
	add := func(inf cache.SharedIndexInformer, set func(before, after any), del func(any)) error {
		reg, err := inf.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { r.guard(ctx, func() { set(nil, obj) }) },
			UpdateFunc: func(before, after any) { r.guard(ctx, func() { set(before, after) }) },
			DeleteFunc: func(obj any) {
				if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
					obj = gone.Obj
				}
				r.guard(ctx, func() { del(obj) })
			},
		})
		if err != nil {
			return fmt.Errorf("add handler: %w", err)
		}
		regs = append(regs, reg)
		undos = append(undos, func() { _ = inf.RemoveEventHandler(reg) }) // fails only for informers that have stopped
		return nil
	}
	if err := add(r.s.nodes, r.setNode, r.dropNode); err != nil {
		return undo, err
	}
	if err := add(r.s.namespaces, r.setNamespace, r.dropNamespace); err != nil {
		return undo, err
	}
	if r.s.volumes != nil {
		woken := func(any) { r.happened(volumeChanged) }
		for _, inf := range r.s.volumes.informers {
			if err := add(inf, func(_, after any) { woken(after) }, woken); err != nil {
				return undo, err
			}
		}
	}
	if err := add(r.s.pods, r.setPod, r.dropPod); err != nil {
		return undo, err
	}
	for _, reg := range regs {
		for done := reg.HasSyncedChecker().Done(); done != nil; {
			select {
			case <-done:
				done = nil
			case <-ctx.Done():
				return undo, nil
			case <-time.After(Heartbeat):
				r.progress()
			}
		}
	}
	return undo, nil
}

// guard keeps a panic over one object from ending the process.
func (r *round) guard(ctx context.Context, f func()) {
	defer func() {
		if p := recover(); p != nil {
			r.s.cfg.Kit.Log.ErrorContext(ctx, "event handler panicked", "panic", fmt.Sprint(p))
		}
	}()
	f()
}

func (r *round) happened(c change) {
	r.mu.Lock()
	r.queue.happened(c, time.Now())
	r.mu.Unlock()
	r.nudge()
}

func (r *round) setNode(before, after any) {
	n, ok := after.(*corev1.Node)
	if !ok {
		return
	}
	if was, ok := before.(*corev1.Node); ok && sameNode(was, n) {
		return
	}
	r.mu.Lock()
	r.cluster.SetNode(n)
	r.mu.Unlock()
	r.happened(nodeChanged)
}

// sameNode reports whether nothing changed that a rule looks at.
func sameNode(a, b *corev1.Node) bool {
	return a.Spec.Unschedulable == b.Spec.Unschedulable &&
		equality.Semantic.DeepEqual(a.Spec.Taints, b.Spec.Taints) &&
		equality.Semantic.DeepEqual(a.Labels, b.Labels) &&
		equality.Semantic.DeepEqual(a.Status.Allocatable, b.Status.Allocatable) &&
		equality.Semantic.DeepEqual(a.Status.Images, b.Status.Images)
}

func (r *round) dropNode(obj any) {
	if n, ok := obj.(*corev1.Node); ok {
		r.mu.Lock()
		r.cluster.RemoveNode(n.Name)
		r.mu.Unlock()
	}
}

func (r *round) setNamespace(before, after any) {
	n, ok := after.(*corev1.Namespace)
	if !ok {
		return
	}
	if was, ok := before.(*corev1.Namespace); ok && equality.Semantic.DeepEqual(was.Labels, n.Labels) {
		return
	}
	l := map[string]string{}
	maps.Copy(l, n.Labels)
	r.mu.Lock()
	r.cluster.SetNamespace(n.Name, l)
	r.mu.Unlock()
	r.happened(namespaceChanged)
}

func (r *round) dropNamespace(obj any) {
	if n, ok := obj.(*corev1.Namespace); ok {
		r.mu.Lock()
		r.cluster.SetNamespace(n.Name, nil)
		r.mu.Unlock()
	}
}

func finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func (r *round) setPod(before, after any) {
	p, ok := after.(*corev1.Pod)
	if !ok {
		return
	}
	was, _ := before.(*corev1.Pod)
	if was != nil && was.UID != p.UID {
		r.dropPod(was)
		was = nil
	}
	switch {
	case finished(p):
		r.dropPod(p)
	case p.Spec.NodeName != "":
		r.place(was, p)
	default:
		r.enqueue(was, p)
	}
}

// place counts a pod that has its node.
func (r *round) place(was, p *corev1.Pod) {
	if was != nil && was.Spec.NodeName == p.Spec.NodeName && samePod(was, p) {
		return
	}
	prepared := decide.Prepare(p)
	r.mu.Lock()
	fresh := r.cluster.On(p.UID) != p.Spec.NodeName
	own := r.assumed[p.UID]
	delete(r.assumed, p.UID)
	r.queue.remove(p.UID)
	r.cluster.Forget(p.UID)
	r.cluster.SetPod(p.Spec.NodeName, prepared)
	r.mu.Unlock()
	if fresh || own || (was != nil && !equality.Semantic.DeepEqual(was.Labels, p.Labels)) {
		r.happened(podPlaced)
	}
	if was != nil && was.Generation != p.Generation { // resized: it may take less now
		r.happened(podGone)
	}
}

// samePod reports whether nothing changed that counts on a node.
func samePod(a, b *corev1.Pod) bool {
	return a.Generation == b.Generation && (a.DeletionTimestamp == nil) == (b.DeletionTimestamp == nil) &&
		equality.Semantic.DeepEqual(a.Labels, b.Labels) &&
		equality.Semantic.DeepEqual(a.Spec, b.Spec) &&
		a.Status.ObservedGeneration == b.Status.ObservedGeneration &&
		equality.Semantic.DeepEqual(allocated(a), allocated(b))
}

func allocated(p *corev1.Pod) []corev1.ResourceList {
	out := make([]corev1.ResourceList, 0, len(p.Status.ContainerStatuses))
	for i := range p.Status.ContainerStatuses {
		out = append(out, p.Status.ContainerStatuses[i].AllocatedResources)
	}
	return out
}

// enqueue makes a pod without a node wait, if it is ours to place.
func (r *round) enqueue(was, p *corev1.Pod) {
	if p.DeletionTimestamp != nil {
		r.dropPod(p)
		return
	}
	if p.Spec.SchedulerName != r.s.cfg.Name || len(p.Spec.SchedulingGates) > 0 {
		return
	}
	if was != nil && equality.Semantic.DeepEqual(was.Spec, p.Spec) && equality.Semantic.DeepEqual(was.Labels, p.Labels) {
		return // its own condition, or the like
	}
	prepared := decide.Prepare(p)
	r.mu.Lock()
	if !r.assumed[p.UID] {
		if node := p.Status.NominatedNodeName; node != "" && was == nil { // by an earlier holder
			r.cluster.Nominate(prepared, node)
		} else if had := r.cluster.Nominated(p.UID); had != "" {
			r.cluster.Nominate(prepared, had)
		}
		r.queue.add(prepared, time.Now())
	}
	r.mu.Unlock()
	r.nudge()
}

func (r *round) dropPod(obj any) {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	r.mu.Lock()
	r.queue.remove(p.UID)
	delete(r.assumed, p.UID)
	counted := r.cluster.On(p.UID) != "" || r.cluster.Nominated(p.UID) != ""
	r.cluster.Forget(p.UID)
	r.cluster.RemovePod(p.UID)
	r.mu.Unlock()
	if counted {
		r.happened(podGone)
	}
}
