package kubelet

import (
	"context"
	"errors"
	"path"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"

	"skein.dev/skein/kubelet/cgroup"
	"skein.dev/skein/kubelet/spec"
)

// leastShares is the weight of those who asked for nothing.
const leastShares = 2

// ensureClasses makes the cgroups of the classes of service and weighs them:
// all pods together as what the node can give, burstable ones as what they
// asked for, the others get what is left. coming is a pod about to start.
func (k *Kubelet) ensureClasses(coming *corev1.Pod) error {
	allocatable := k.node.allocatable()
	burstable := int64(0)
	k.mu.Lock()
	for uid, w := range k.workers {
		if coming == nil || uid != coming.UID {
			pod := w.current()
			burstable += burstableCPU(pod)
		}
	}
	k.mu.Unlock()
	if coming != nil {
		burstable += burstableCPU(coming)
	}
	root := path.Join("/", k.cfg.CgroupRoot, "kubepods")
	for _, c := range []struct {
		path   string
		shares int64
	}{
		{root, spec.Shares(allocatable.Cpu().MilliValue())},
		{path.Join(root, "burstable"), spec.Shares(burstable)},
		{path.Join(root, "besteffort"), leastShares},
	} {
		if err := k.cgroups.Ensure(c.path, cgroup.Limits{CPUShares: c.shares}); err != nil {
			return err
		}
	}
	return nil
}

func burstableCPU(pod *corev1.Pod) int64 {
	if spec.QOS(pod) != corev1.PodQOSBurstable || len(pod.Spec.Containers) == 0 {
		return 0
	}
	r := resource.PodRequests(pod, resource.PodResourcesOptions{})
	return r.Cpu().MilliValue()
}

// How long the last processes of a pod's cgroup are given to be gone.
const (
	cgroupWait = 2 * time.Second
	cgroupLook = 20 * time.Millisecond
)

// removeCgroup removes the cgroup of a pod of which the runtime has nothing
// any more. A process may still be ending there, or have been left by a call
// to the runtime that was cut short: nobody else would ever end it.
func (k *Kubelet) removeCgroup(ctx context.Context, path string) error {
	err := k.cgroups.Remove(path)
	for end := time.Now().Add(cgroupWait); errors.Is(err, syscall.EBUSY) && time.Now().Before(end); err = k.cgroups.Remove(path) {
		if killErr := k.cgroups.Kill(path); killErr != nil {
			return errors.Join(err, killErr)
		}
		t := time.NewTimer(cgroupLook)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
	return err
}
