package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skein.dev/skein/kubelet/cgroup"
	"skein.dev/skein/kubelet/cri"
	"skein.dev/skein/kubelet/lifecycle"
	"skein.dev/skein/kubelet/probe"
	"skein.dev/skein/kubelet/spec"
)

// actionTimeout bounds one action: a runtime that hangs must not hold a pod
// for ever. Pulls and hooks have limits of their own.
const actionTimeout = 4 * time.Minute

// do does one action and says how it ended. A panic is a failure of it.
func (w *worker) do(ctx context.Context, pod *corev1.Pod, a lifecycle.Action) (r result) {
	defer func() {
		if p := recover(); p != nil {
			w.k.log.ErrorContext(ctx, "pod action panicked", "pod", w.name(), "action", a.String(), "panic", p, "stack", string(debug.Stack()))
			r.failure = &lifecycle.Failure{Action: a, Message: fmt.Sprint(p)}
		}
	}()
	r.action = a
	if a.Op == lifecycle.Start {
		r.refresh, r.failure = w.start(ctx, pod, a)
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, actionTimeout)
	defer cancel()
	var err error
	switch a.Op {
	case lifecycle.CreateSandbox:
		r.refresh, err = w.createSandbox(ctx, pod, a.Attempt)
	case lifecycle.StopSandbox:
		_, err = w.k.runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: a.ID})
	case lifecycle.RemoveSandbox:
		_, err = w.k.runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: a.ID})
	case lifecycle.Remove:
		_, err = w.k.runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: a.ID})
		w.k.runtime.Forget(a.ID)
	case lifecycle.Resize:
		err = w.resize(ctx, pod, a)
	case lifecycle.Cleanup:
		err = w.cleanup(ctx, pod)
	default:
		err = fmt.Errorf("unknown action %s", a.Op)
	}
	if err != nil && !cri.IsNotFound(err) {
		if !errors.Is(ctx.Err(), context.Canceled) {
			w.k.log.WarnContext(ctx, "pod action not done", "pod", w.name(), "action", a.String(), "err", err)
		}
		r.failure = &lifecycle.Failure{Action: a, Message: message(err)}
	}
	return r
}

// message is an error without the wire's decoration.
func message(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}

// createSandbox prepares the node for the pod and makes its sandbox.
func (w *worker) createSandbox(ctx context.Context, pod *corev1.Pod, attempt int) (refresh time.Time, err error) {
	_, refresh, err = w.k.volumes.Ensure(ctx, pod)
	if err != nil {
		w.eventErr(ctx, "FailedMount", "Mounting", err, "")
		return refresh, err
	}
	n := w.k.specNode()
	if err := w.ensureCgroup(pod, n); err != nil {
		w.eventErr(ctx, "FailedCreatePodContainer", "Starting", err, "")
		return refresh, err
	}
	if err := os.MkdirAll(n.PodLogDir(pod), 0o755); err != nil {
		return refresh, fmt.Errorf("make log directory: %w", err)
	}
	cfg := spec.Sandbox(pod, n, attempt)
	handler := ""
	if pod.Spec.RuntimeClassName != nil {
		if handler, err = w.k.objects.runtimeHandler(ctx, *pod.Spec.RuntimeClassName); err != nil {
			w.eventErr(ctx, "FailedCreatePodSandBox", "Starting", err, "")
			return refresh, err
		}
	}
	_, err = w.k.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: cfg, RuntimeHandler: handler})
	if err != nil {
		w.eventErr(ctx, "FailedCreatePodSandBox", "Starting", fmt.Errorf("failed to create pod sandbox: %s", message(err)), "")
	}
	return refresh, err
}

func (w *worker) ensureCgroup(pod *corev1.Pod, n spec.Node) error {
	if err := w.k.ensureClasses(pod); err != nil {
		return err
	}
	r := spec.PodResources(pod)
	return w.k.cgroups.Ensure(spec.CgroupParent(n.CgroupRoot, pod), cgroup.Limits{
		CPUShares: r.CpuShares, CPUPeriod: r.CpuPeriod, CPUQuota: r.CpuQuota, MemoryBytes: r.MemoryLimitInBytes,
	})
}

// cleanup undoes what the node has of the pod beside the runtime.
func (w *worker) cleanup(ctx context.Context, pod *corev1.Pod) error {
	if err := w.k.volumes.Remove(pod.UID); err != nil {
		return err
	}
	if path, ok := w.k.cgroups.Pods()[string(pod.UID)]; ok {
		if err := w.k.removeCgroup(ctx, path); err != nil {
			return err
		}
	}
	if pod.UID == "" || strings.Contains(string(pod.UID), "/") {
		return nil
	}
	if err := os.RemoveAll(w.k.specNode().PodLogDir(pod)); err != nil {
		return fmt.Errorf("remove logs: %w", err)
	}
	return nil
}

// kill runs the preStop hook of a container and stops it, both within the
// action's grace.
func (w *worker) kill(ctx context.Context, pod *corev1.Pod, a lifecycle.Action) *lifecycle.Failure {
	end := time.Now().Add(a.Grace)
	w.event(corev1.EventTypeNormal, "Killing", "Killing", killNote(a), a.Name)
	c := spec.Container(pod, a.Name)
	if c != nil && c.Lifecycle != nil && c.Lifecycle.PreStop != nil && a.Grace > 0 {
		hookCtx, cancel := context.WithDeadline(ctx, end)
		err := w.hook(hookCtx, pod, c, a.ID, c.Lifecycle.PreStop, a.Grace)
		cancel()
		if err != nil && ctx.Err() == nil {
			w.event(corev1.EventTypeWarning, "FailedPreStopHook", "Killing", "PreStopHook failed: "+err.Error(), a.Name)
		}
	}
	// Two seconds at least, however long the hook took, as the documentation
	// of hooks promises; an immediate kill stays one.
	left := time.Until(end)
	if a.Grace > 0 {
		left = max(left, min(2*time.Second, a.Grace))
	}
	ctx, cancel := context.WithTimeout(ctx, left+actionTimeout)
	defer cancel()
	_, err := w.k.runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{
		ContainerId: a.ID, Timeout: int64((left + time.Second - 1) / time.Second),
	})
	if err == nil || cri.IsNotFound(err) {
		return nil
	}
	return &lifecycle.Failure{Action: a, Message: message(err)}
}

func killNote(a lifecycle.Action) string {
	if a.Why == "" || a.Why == "Stopping container" {
		return "Stopping container " + a.Name
	}
	return a.Why
}

// hook runs one lifecycle handler.
func (w *worker) hook(ctx context.Context, pod *corev1.Pod, c *corev1.Container, id string, h *corev1.LifecycleHandler, limit time.Duration) error {
	w.mu.Lock()
	ip := w.address(pod, w.sandboxes)
	w.mu.Unlock()
	switch {
	case h.Exec != nil:
		out, exit, err := w.k.runtime.Exec(ctx, id, h.Exec.Command, limit)
		if err == nil && exit != 0 {
			err = fmt.Errorf("command exited with %d: %s", exit, strings.TrimSpace(string(out)))
		}
		return err
	case h.HTTPGet != nil:
		return probe.HTTP(ctx, c, ip, h.HTTPGet, limit)
	case h.TCPSocket != nil:
		return probe.TCP(ctx, c, ip, h.TCPSocket, limit)
	case h.Sleep != nil:
		t := time.NewTimer(time.Duration(h.Sleep.Seconds) * time.Second)
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// event records an event of the pod, of one container where name is set.
func (w *worker) event(kind, reason, action, note, name string) {
	pod := w.current()
	if w.orphan {
		return // an object that does not exist has no events
	}
	ref := &corev1.ObjectReference{
		Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
	}
	if name != "" {
		ref.FieldPath = "spec.containers{" + name + "}"
		for i := range pod.Spec.InitContainers {
			if pod.Spec.InitContainers[i].Name == name {
				ref.FieldPath = "spec.initContainers{" + name + "}"
			}
		}
		for i := range pod.Spec.EphemeralContainers {
			if pod.Spec.EphemeralContainers[i].Name == name {
				ref.FieldPath = "spec.ephemeralContainers{" + name + "}"
			}
		}
	}
	const most = 1024 // of a note, by the events API
	w.k.cfg.Kit.Recorder.Eventf(ref, nil, kind, reason, action, "%s", note[:min(len(note), most)])
}

func (w *worker) eventErr(ctx context.Context, reason, action string, err error, name string) {
	if !errors.Is(ctx.Err(), context.Canceled) { // a cancelled action did not fail
		w.event(corev1.EventTypeWarning, reason, action, message(err), name)
	}
}

func (w *worker) probeFailed(c *corev1.Container, kind probe.Kind, output string) {
	w.event(corev1.EventTypeWarning, "Unhealthy", "Probing", fmt.Sprintf("%s probe failed: %s", kind, output), c.Name)
}
