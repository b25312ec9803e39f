package kubelet

import (
	"context"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skein.dev/skein/kubelet/cri"
	"skein.dev/skein/kubelet/lifecycle"
	"skein.dev/skein/kubelet/pressure"
)

// leaveLimit is for how long an evicted pod is waited for that does not end.
const leaveLimit = 30 * time.Second

// reclaim frees some of what is most short: unused images where that is disk,
// and if it does not suffice one pod. The next look tells whether it did.
func (r *room) reclaim(ctx context.Context, short []pressure.Short) {
	if len(short) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	s := short[0]
	signal := s.Threshold.Signal
	r.event(corev1.EventTypeWarning, "EvictionThresholdMet", fmt.Sprintf("Attempting to reclaim %s", signal.Resource()))
	if signal.Condition() == corev1.NodeDiskPressure {
		if all, err := r.listImages(ctx); err == nil {
			now := time.Now()
			r.images.Look(all, now)
			r.collect(ctx, all, now, math.MaxInt64)
		}
		if len((&pressure.Monitor{}).Observe([]pressure.Threshold{s.Threshold}, time.Now(), r.have())) == 0 {
			return
		}
	}
	if r.leaving != nil && r.leaving.holdsRoom() && time.Since(r.leftAt) < leaveLimit {
		return // what it had comes back first
	}
	workers := map[types.UID]*worker{}
	usages, err := r.usages(ctx, signal, workers)
	if err != nil {
		r.k.log.WarnContext(ctx, "no pod is evicted without knowing what it uses", "err", err)
		return
	}
	u := pressure.Next(signal.Resource(), usages)
	if u == nil {
		r.k.log.DebugContext(ctx, "the node runs short and has no pod to evict", "resource", string(signal.Resource()), "available", s.Sample.Available)
		return
	}
	r.leaving, r.leftAt = workers[u.Pod.UID], time.Now()
	r.leaving.evict(pressure.Message(s, u))
	r.k.log.InfoContext(ctx, "pod evicted", "pod", u.Pod.Namespace+"/"+u.Pod.Name, "resource", string(signal.Resource()), "used", u.Used)
}

// usages is what each pod uses of the short resource that has something
// running and need not go already.
func (r *room) usages(ctx context.Context, signal pressure.Signal, workers map[types.UID]*worker) ([]pressure.Usage, error) {
	r.k.mu.Lock()
	for uid, w := range r.k.workers {
		if w.holdsRoom() && !w.orphan && !w.isEvicted() {
			workers[uid] = w
		}
	}
	r.k.mu.Unlock()
	used := map[types.UID]map[string]int64{}
	switch signal.Condition() {
	case corev1.NodeMemoryPressure, corev1.NodePIDPressure:
		var err error
		if used, err = r.runtimeUsage(ctx, signal); err != nil {
			return nil, err
		}
	default:
		for uid, w := range workers {
			used[uid] = map[string]int64{"": r.diskUsage(ctx, w, signal)}
		}
	}
	var out []pressure.Usage
	for uid, w := range workers {
		pod := w.current()
		u := pressure.Usage{Pod: pod, Containers: used[uid], Used: used[uid][""]}
		request := resource.PodRequests(pod, resource.PodResourcesOptions{})[signal.Resource()]
		u.Requested = request.Value()
		out = append(out, u)
	}
	return out, nil
}

// runtimeUsage is what the runtime knows of pods' memory or processes, by
// container, the whole pod under "".
func (r *room) runtimeUsage(ctx context.Context, signal pressure.Signal) (map[types.UID]map[string]int64, error) {
	l, err := r.k.runtime.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{
		Filter: &runtimeapi.PodSandboxStatsFilter{LabelSelector: map[string]string{cri.LabelNode: r.k.cfg.NodeName}},
	})
	if err != nil {
		return nil, fmt.Errorf("read pods' usage: %w", err)
	}
	out := map[types.UID]map[string]int64{}
	for _, p := range l.Stats {
		by := map[string]int64{}
		if signal == pressure.PIDs {
			by[""] = int64(p.GetLinux().GetProcess().GetProcessCount().GetValue())
		} else {
			by[""] = int64(p.GetLinux().GetMemory().GetWorkingSetBytes().GetValue())
			for _, c := range p.GetLinux().GetContainers() {
				by[c.GetAttributes().GetMetadata().GetName()] = int64(c.GetMemory().GetWorkingSetBytes().GetValue())
			}
		}
		out[types.UID(p.GetAttributes().GetMetadata().GetUid())] = by
	}
	return out, nil
}

// diskUsage is what a pod has on disk: its containers' own layers, its logs
// and its volumes that are directories of the node.
func (r *room) diskUsage(ctx context.Context, w *worker, signal pressure.Signal) int64 {
	inodes := signal.Resource() != corev1.ResourceEphemeralStorage
	sum := int64(0)
	if l, err := r.k.runtime.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{
		Filter: &runtimeapi.ContainerStatsFilter{LabelSelector: map[string]string{cri.LabelPodUID: string(w.uid)}},
	}); err == nil {
		for _, c := range l.Stats {
			if inodes {
				sum += int64(c.GetWritableLayer().GetInodesUsed().GetValue())
			} else {
				sum += int64(c.GetWritableLayer().GetUsedBytes().GetValue())
			}
		}
	}
	for _, dir := range []string{
		r.k.specNode().PodLogDir(w.current()), filepath.Join(r.k.volumes.PodDir(w.uid), "volumes", "kubernetes.io~empty-dir"),
	} {
		bytes, files := onDisk(ctx, dir)
		if inodes {
			sum += files
		} else {
			sum += bytes
		}
	}
	return sum
}

// onDisk counts what is in dir and on its own file system; what vanishes
// meanwhile is not there. With the end of ctx the count ends.
func onDisk(ctx context.Context, dir string) (bytes, files int64) {
	var root *syscall.Stat_t
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return fs.SkipAll
		}
		if err != nil {
			return nil //nolint:nilerr // it has gone
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // likewise
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		switch {
		case !ok:
			return nil
		case root == nil:
			root = st
		case st.Dev != root.Dev && d.IsDir():
			return fs.SkipDir // a volume in memory
		}
		files++
		bytes += st.Blocks * 512
		return nil
	})
	return bytes, files
}

// evict ends the pod for the node's sake.
func (w *worker) evict(message string) {
	w.event(corev1.EventTypeWarning, lifecycle.ReasonEvicted, "Evicting", message, "")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.evicted = &lifecycle.Rejection{Reason: lifecycle.ReasonEvicted, Message: message}
	w.poke()
}

func (w *worker) isEvicted() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.evicted != nil
}

// holdsRoom reports whether the runtime holds something of the pod.
func (w *worker) holdsRoom() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.containers) > 0 || len(w.sandboxes) > 0
}
