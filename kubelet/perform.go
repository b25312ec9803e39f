package kubelet

import (
	"context"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"skein.dev/skein/kubelet/lifecycle"
)

// perform starts the plan's actions.
func (w *worker) perform(ctx context.Context, pod *corev1.Pod, plan lifecycle.Plan, sandboxes []lifecycle.Sandbox) {
	var list []lifecycle.Action
	for _, a := range plan.Actions {
		if a.Op == lifecycle.Kill {
			w.k.log.DebugContext(ctx, "pod action", "pod", w.name(), "action", a.String())
			w.wg.Go(func() { w.send(ctx, result{action: a, failure: w.kill(ctx, pod, a)}) })
		} else {
			list = append(list, a)
		}
	}
	if w.busy != nil {
		if w.upward && (pod.DeletionTimestamp != nil || plan.Stopped) {
			w.busy() // a pull for a pod that goes away helps nobody
		}
		return
	}
	if len(list) == 0 {
		return
	}
	opCtx, cancel := context.WithCancel(ctx)
	w.busy, w.upward = cancel, slices.ContainsFunc(list, func(a lifecycle.Action) bool {
		return a.Op == lifecycle.CreateSandbox || a.Op == lifecycle.Start
	})
	shown := w.withAddresses(pod, sandboxes)
	w.wg.Go(func() {
		defer cancel()
		defer w.send(ctx, result{last: true})
		for _, a := range list {
			w.k.log.DebugContext(ctx, "pod action", "pod", w.name(), "action", a.String())
			r := w.do(opCtx, shown, a)
			if opCtx.Err() != nil {
				return // what was cancelled did not fail
			}
			w.send(ctx, r)
			if r.failure != nil && a.Op != lifecycle.Start {
				return
			}
		}
	})
}

// send hands a result to the loop, unless that is over.
func (w *worker) send(ctx context.Context, r result) {
	select {
	case w.results <- r:
	case <-ctx.Done():
	}
}

// withAddresses is the pod with the addresses that it has now, which its
// status in the API may not show yet.
func (w *worker) withAddresses(pod *corev1.Pod, sandboxes []lifecycle.Sandbox) *corev1.Pod {
	out := pod.DeepCopy()
	hosts := w.k.cfg.hostIPs()
	out.Status.HostIP, out.Status.HostIPs = hosts[0], nil
	for _, ip := range hosts {
		out.Status.HostIPs = append(out.Status.HostIPs, corev1.HostIP{IP: ip})
	}
	ips := hosts
	if !pod.Spec.HostNetwork {
		if len(sandboxes) == 0 || len(sandboxes[0].IPs) == 0 {
			return out
		}
		ips = sandboxes[0].IPs
	}
	out.Status.PodIP, out.Status.PodIPs = ips[0], nil
	for _, ip := range ips {
		out.Status.PodIPs = append(out.Status.PodIPs, corev1.PodIP{IP: ip})
	}
	return out
}

// refresh brings volumes of a running pod up to date when they are due, and
// returns when that will be.
func (w *worker) refresh(ctx context.Context, pod *corev1.Pod, plan lifecycle.Plan, now time.Time) time.Time {
	w.mu.Lock()
	live := len(w.sandboxes) > 0 && w.sandboxes[0].Ready
	w.mu.Unlock()
	if w.refreshAt.IsZero() || plan.Stopped || pod.DeletionTimestamp != nil || !live || w.busy != nil {
		return time.Time{}
	}
	if now.Before(w.refreshAt) {
		return w.refreshAt
	}
	w.refreshAt = time.Time{}
	opCtx, cancel := context.WithCancel(ctx)
	w.busy, w.upward = cancel, true
	w.mu.Lock()
	shown := w.withAddresses(pod, w.sandboxes)
	w.mu.Unlock()
	w.wg.Go(func() {
		defer cancel()
		_, again, err := w.k.volumes.Ensure(opCtx, shown)
		if err != nil {
			if opCtx.Err() == nil {
				w.event(corev1.EventTypeWarning, "FailedMount", "Mounting", err.Error(), "")
			}
			again = time.Now().Add(time.Minute)
		}
		w.send(ctx, result{last: true, refresh: again})
	})
	return time.Time{}
}

// hookRuns notes that a container's postStart hook begins or has ended.
func (w *worker) hookRuns(id string, begins bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if begins {
		w.hooked[id] = true
	} else {
		delete(w.hooked, id)
	}
	w.poke()
}

// hooks returns the containers whose postStart hook runs.
func (w *worker) hooks() map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.hooked)
}
