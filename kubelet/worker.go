package kubelet

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"skein.dev/skein/kubelet/lifecycle"
	"skein.dev/skein/kubelet/probe"
	"skein.dev/skein/kubelet/spec"
	"skein.dev/skein/network/lb"
)

// worker runs one pod: it reads the runtime, lets the machine plan, and does
// what the plan says. Kills run beside; other actions one list at a time.
type worker struct {
	k       *Kubelet
	uid     types.UID
	machine *lifecycle.Machine
	probes  *probe.Set
	orphan  bool
	signal  chan struct{}
	results chan result
	wg      sync.WaitGroup

	// of the loop only
	busy      context.CancelFunc // ends the list that is being done
	upward    bool               // that list brings the pod up
	refreshAt time.Time
	retryAt   time.Time
	adopted   bool
	waits     map[string]string // container -> waiting reason that was last told
	refused   bool              // the pod's rejection has been told

	mu         sync.Mutex // guards the fields below
	pod        *corev1.Pod
	gone       bool
	dirty      bool            // something that the pod refers to has changed
	hooked     map[string]bool // container ids whose postStart hook runs
	admitted   bool            // the node has said yes to the pod
	res        resources
	sandboxes  []lifecycle.Sandbox
	containers []lifecycle.Container
	evicted    *lifecycle.Rejection
	ports      []lb.Service // host ports that lead to the pod
	portsTold  bool
}

// result is the end of one action, or of a list when last is set.
type result struct {
	action  lifecycle.Action
	failure *lifecycle.Failure
	last    bool
	refresh time.Time
}

func newWorker(k *Kubelet, pod *corev1.Pod, orphan bool) *worker {
	w := &worker{
		k: k, uid: pod.UID, admitted: pod.Status.StartTime != nil, hooked: map[string]bool{}, machine: lifecycle.New(), orphan: orphan, pod: pod, gone: orphan,
		signal: make(chan struct{}, 1), results: make(chan result),
	}
	w.poke()
	return w
}

// poke makes the worker look again; it never blocks.
func (w *worker) poke() {
	select {
	case w.signal <- struct{}{}:
	default:
	}
}

// update takes a new state of the pod.
func (w *worker) update(pod *corev1.Pod, gone bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !maps.Equal(w.pod.Labels, pod.Labels) || !maps.Equal(w.pod.Annotations, pod.Annotations) {
		w.dirty = true // downward volumes show them
	}
	w.pod, w.gone = pod, w.gone || gone
	w.poke()
}

func (w *worker) current() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod
}

// standing is the pod and whether it takes room: the node has said yes to it
// and the API still has it.
func (w *worker) standing() (pod *corev1.Pod, admitted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.res.with(w.pod), w.admitted && !w.gone
}

// admit notes that the node has said yes.
func (w *worker) admit() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.admitted = true
}

// objectChanged marks the worker if its pod refers to the object.
func (w *worker) objectChanged(kind, namespace, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pod.Namespace == namespace && spec.Uses(w.pod, kind, name) {
		w.dirty = true
		w.poke()
	}
}

// run is the worker's life; it ends when nothing of the pod is left or with
// ctx.
func (w *worker) run(ctx context.Context) {
	w.probes = probe.New(probe.Config{
		Exec: w.k.runtime, Changed: w.poke, Failed: w.probeFailed, Spread: false,
	})
	ctx, cancel := context.WithCancel(ctx)
	defer w.wg.Wait()
	defer func() { w.probes.Stop() }() // adopt may have made others
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-w.results:
			w.take(r)
			continue
		case <-w.signal:
		case <-timer.C:
		}
		next, done := w.step(ctx)
		if done {
			return
		}
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(max(time.Until(next), time.Millisecond))
		}
	}
}

// take tells the machine how an action ended.
func (w *worker) take(r result) {
	now := time.Now()
	switch {
	case r.failure != nil:
		w.machine.Failed(*r.failure, now)
		if at := now.Add(time.Second); w.retryAt.IsZero() || at.Before(w.retryAt) {
			w.retryAt = at
		}
	case r.action.Op != "":
		w.machine.Done(r.action)
	}
	if !r.refresh.IsZero() {
		w.refreshAt = r.refresh
	}
	if r.last {
		w.busy = nil
	}
	w.poke()
}

// earliest returns the earlier of two times, where zero is never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// step looks once and acts. It returns when to look again.
func (w *worker) step(ctx context.Context) (next time.Time, done bool) {
	now := time.Now()
	readCtx, cancel := context.WithTimeout(ctx, actionTimeout)
	sandboxes, containers, err := w.k.runtime.Pod(readCtx, w.uid)
	cancel()
	if err != nil {
		if ctx.Err() == nil {
			w.k.log.DebugContext(ctx, "runtime not read", "pod", w.name(), "err", err)
		}
		return now.Add(time.Second), false
	}
	w.mu.Lock()
	pod, gone, dirty := w.pod, w.gone, w.dirty
	w.dirty = false
	w.sandboxes, w.containers = sandboxes, containers
	w.mu.Unlock()
	if gone && !w.k.cfg.Kit.Settled() {
		return now.Add(time.Second), false // adopt, delete nothing
	}
	w.tellPorts(pod, sandboxes, gone && len(sandboxes) == 0)
	if !w.adopted {
		w.adopted = true
		w.adopt(containers, now)
	}
	if !w.orphan {
		pod = w.k.settle(ctx, w, pod)
	}
	if dirty {
		w.machine.Retry()
		w.refreshAt = now
	}
	w.syncProbes(ctx, pod, sandboxes, containers)
	in := w.input(ctx, pod, gone, sandboxes, containers)
	if r := in.Rejected; r != nil && !w.refused {
		w.refused = true
		w.event(corev1.EventTypeWarning, r.Reason, "Admitting", r.Message, "")
	}
	plan := w.machine.Plan(in, now)
	w.perform(ctx, pod, plan, sandboxes)
	if plan.Clean && gone {
		w.k.status.forget(pod.UID)
		return time.Time{}, true
	}
	w.tellBackOff(&plan.Status)
	if !gone && !w.orphan && !now.Before(plan.Hold) {
		w.k.status.set(pod, &plan.Status, plan.Clean)
	}
	next = earliest(plan.Wake, w.refresh(ctx, pod, plan, now))
	if in.HoldSandbox != "" {
		next = earliest(next, now.Add(time.Second))
	}
	if w.retryAt.After(now) {
		next = earliest(next, w.retryAt)
	} else {
		w.retryAt = time.Time{}
	}
	return next, false
}

// adopt spreads the first probes of containers that were found running, and
// looks after their volumes, whose objects may have changed meanwhile.
func (w *worker) adopt(containers []lifecycle.Container, now time.Time) {
	if slices.ContainsFunc(containers, func(c lifecycle.Container) bool { return c.State == lifecycle.Running }) {
		w.refreshAt = now
		w.probes.Stop()
		w.probes = probe.New(probe.Config{Exec: w.k.runtime, Changed: w.poke, Failed: w.probeFailed, Spread: true})
	}
}

func (w *worker) input(ctx context.Context, pod *corev1.Pod, gone bool, sandboxes []lifecycle.Sandbox, containers []lifecycle.Container) lifecycle.Input {
	in := lifecycle.Input{
		Pod: pod, Sandboxes: sandboxes, Containers: containers, Probes: w.probes.Results(), Gone: gone,
		Hooked: w.hooks(), Busy: w.busy != nil, Runtime: w.k.node.runtimeName(), HostIPs: w.k.cfg.hostIPs(),
	}
	w.mu.Lock()
	in.Evicted = w.evicted
	w.mu.Unlock()
	w.tellResources(&in)
	if !w.k.cfg.Kit.Settled() && ownedBy(pod, "StatefulSet") {
		in.HoldSandbox = "it must not run twice, and the cluster has not confirmed it yet"
	}
	if len(sandboxes) > 0 || len(containers) > 0 || gone || pod.DeletionTimestamp != nil {
		w.admit() // what runs has been let in before
	} else {
		in.Rejected = w.k.admit(ctx, w)
	}
	return in
}

func ownedBy(pod *corev1.Pod, kind string) bool {
	for _, o := range pod.OwnerReferences {
		if o.Controller != nil && *o.Controller && o.Kind == kind {
			return true
		}
	}
	return false
}

// syncProbes probes what runs.
func (w *worker) syncProbes(ctx context.Context, pod *corev1.Pod, sandboxes []lifecycle.Sandbox, containers []lifecycle.Container) {
	var targets []probe.Target
	hooked := w.hooks()
	for i := range containers {
		c := &containers[i]
		s := spec.Container(pod, c.Name)
		if c.State != lifecycle.Running || hooked[c.ID] || s == nil || pod.DeletionTimestamp != nil ||
			(s.StartupProbe == nil && s.ReadinessProbe == nil && s.LivenessProbe == nil) {
			continue
		}
		targets = append(targets, probe.Target{ID: c.ID, Container: s, IP: w.address(pod, sandboxes), Started: c.StartedAt})
	}
	w.probes.Sync(ctx, targets)
}

// address is where the pod answers.
func (w *worker) address(pod *corev1.Pod, sandboxes []lifecycle.Sandbox) string {
	if pod.Spec.HostNetwork {
		return w.k.cfg.NodeIPs[0].String()
	}
	if len(sandboxes) > 0 && len(sandboxes[0].IPs) > 0 {
		return sandboxes[0].IPs[0]
	}
	return ""
}

func (w *worker) name() string {
	p := w.current()
	return p.Namespace + "/" + p.Name
}

// tellBackOff records an event when a container begins to back off.
func (w *worker) tellBackOff(st *corev1.PodStatus) {
	now := map[string]string{}
	for _, list := range [][]corev1.ContainerStatus{st.InitContainerStatuses, st.ContainerStatuses, st.EphemeralContainerStatuses} {
		for i := range list {
			c := &list[i]
			if c.State.Waiting == nil {
				continue
			}
			now[c.Name] = c.State.Waiting.Reason
			if w.waits[c.Name] == now[c.Name] {
				continue
			}
			switch c.State.Waiting.Reason {
			case lifecycle.ReasonCrashLoopBackOff:
				w.event(corev1.EventTypeWarning, "BackOff", "Restarting", "Back-off restarting failed container "+c.Name, c.Name)
			case lifecycle.ReasonImagePullBackOff:
				w.event(corev1.EventTypeNormal, "BackOff", "Pulling", fmt.Sprintf("Back-off pulling image %q", c.Image), c.Name)
			}
		}
	}
	w.waits = now
}
