package kubelet

import (
	"context"
	"maps"
	"time"

	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skein.dev/skein/kubelet/cri"
)

// relistBlind is the period of comparisons while there are no events.
const relistBlind = time.Second

// follow wakes workers when the runtime says that something happened, and
// compares everything from time to time in case it did not say so.
func (k *Kubelet) follow(ctx context.Context, events <-chan types.UID, state <-chan bool) {
	var last map[types.UID]*cri.Held
	period := relistBlind
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case uid := <-events:
			k.wake(uid)
			continue
		case up := <-state:
			period = relistBlind
			if up {
				period = k.cfg.Relist
			}
		case <-timer.C:
		}
		if held, err := k.runtime.List(ctx); err == nil {
			k.compare(last, held)
			last = held
			k.clearOrphans(ctx, held)
		}
		next := period
		if !k.cfg.Kit.Settled() {
			next = relistBlind // orphans wait for this
		}
		timer.Reset(next)
	}
}

// stream reads the runtime's events and begins again when it breaks.
func (k *Kubelet) stream(ctx context.Context, events chan<- types.UID, state chan<- bool) {
	tell := func(up bool) {
		select {
		case state <- up:
		case <-ctx.Done():
		}
	}
	for ctx.Err() == nil {
		s, err := k.runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
		up := false
		for err == nil {
			if !up {
				up = true
				tell(true)
			}
			var e *runtimeapi.ContainerEventResponse
			if e, err = s.Recv(); err != nil {
				break
			}
			select {
			case events <- uidOf(e):
			case <-ctx.Done():
			}
		}
		if up {
			tell(false)
		}
		t := time.NewTimer(relistBlind)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
}

func uidOf(e *runtimeapi.ContainerEventResponse) types.UID {
	if m := e.GetPodSandboxStatus().GetMetadata(); m != nil {
		return types.UID(m.Uid)
	}
	for _, c := range e.ContainersStatuses {
		if uid := c.Labels[cri.LabelPodUID]; uid != "" {
			return types.UID(uid)
		}
	}
	return ""
}

// compare wakes the workers of pods that changed between two lists.
func (k *Kubelet) compare(before, now map[types.UID]*cri.Held) {
	for uid, h := range now {
		b := before[uid]
		if b == nil || !maps.Equal(b.States, h.States) || !maps.Equal(b.Sandboxes, h.Sandboxes) {
			k.wake(uid)
		}
	}
	for uid := range before {
		if now[uid] == nil {
			k.wake(uid)
		}
	}
}

// clearOrphans ends what nobody wants any more: pods that the API does not
// have, directories and cgroups of pods that do not exist. It does nothing
// before the replica is verified.
func (k *Kubelet) clearOrphans(ctx context.Context, held map[types.UID]*cri.Held) {
	if !k.cfg.Kit.Settled() {
		return
	}
	known := func(uid types.UID) bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.workers[uid] != nil
	}
	for uid, h := range held {
		if !known(uid) {
			k.log.InfoContext(ctx, "ending a pod that the cluster does not have", "pod", h.Namespace+"/"+h.Name, "uid", string(uid))
			k.adoptOrphan(h)
		}
	}
	dirs, err := k.volumes.Pods()
	if err != nil {
		k.log.WarnContext(ctx, "pod directories not read", "err", err)
	}
	for _, uid := range dirs {
		if known(uid) || held[uid] != nil {
			continue
		}
		if err := k.volumes.Remove(uid); err != nil {
			k.log.WarnContext(ctx, "orphaned pod directory not removed", "uid", string(uid), "err", err)
		}
	}
	for uid, path := range k.cgroups.Pods() {
		if known(types.UID(uid)) || held[types.UID(uid)] != nil {
			continue
		}
		if err := k.removeCgroup(ctx, path); err != nil {
			k.log.WarnContext(ctx, "orphaned pod cgroup not removed", "path", path, "err", err)
		}
	}
}
