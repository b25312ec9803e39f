package kubelet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skein.dev/skein/kubelet/lifecycle"
	"skein.dev/skein/kubelet/spec"
	"skein.dev/skein/kubelet/volume"
)

// start brings one container up: volumes, image, configuration, container,
// process, hook.
func (w *worker) start(ctx context.Context, pod *corev1.Pod, a lifecycle.Action) (refresh time.Time, failure *lifecycle.Failure) {
	c := spec.Container(pod, a.Name)
	if c == nil {
		return refresh, &lifecycle.Failure{Action: a, Reason: lifecycle.ReasonConfigError, Message: "container is not in the spec"}
	}
	fail := func(reason, event string, err error) *lifecycle.Failure {
		w.eventErr(ctx, event, "Starting", err, c.Name)
		return &lifecycle.Failure{Action: a, Reason: reason, Message: message(err)}
	}
	places, refresh, err := w.k.volumes.Ensure(ctx, pod)
	if err != nil {
		return refresh, fail("", "FailedMount", err)
	}
	img, f := w.image(ctx, pod, c, a)
	if f != nil {
		return refresh, f
	}
	if f := w.imageVolumes(ctx, pod, c, a, places); f != nil {
		return refresh, f
	}
	cfg, err := w.containerConfig(ctx, pod, c, a, img, places)
	if err != nil {
		return refresh, fail(lifecycle.ReasonConfigError, "Failed", fmt.Errorf("Error: %w", err))
	}
	if err := w.widen(pod, w.k.specNode()); err != nil {
		return refresh, fail(lifecycle.ReasonCreateError, "Failed", fmt.Errorf("Error: %w", err))
	}
	// The sandbox's own configuration must be told again; only its names,
	// cgroup and log directory count.
	callCtx, cancel := context.WithTimeout(ctx, actionTimeout)
	defer cancel()
	created, err := w.k.runtime.CreateContainer(callCtx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: a.ID, Config: cfg, SandboxConfig: spec.Sandbox(pod, w.k.specNode(), 0),
	})
	if err != nil {
		return refresh, fail(lifecycle.ReasonCreateError, "Failed", fmt.Errorf("Error: %s", message(err)))
	}
	w.event(corev1.EventTypeNormal, "Created", "Starting", "Container created", c.Name)
	hook := c.Lifecycle != nil && c.Lifecycle.PostStart != nil
	if hook { // before it runs: nobody may take it for started
		w.hookRuns(created.ContainerId, true)
		defer w.hookRuns(created.ContainerId, false)
	}
	if _, err := w.k.runtime.StartContainer(callCtx, &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		return refresh, fail(lifecycle.ReasonRunError, "Failed", fmt.Errorf("Error: %s", message(err)))
	}
	w.resized(pod, c.Name)
	w.event(corev1.EventTypeNormal, "Started", "Starting", "Container started", c.Name)
	if !hook {
		return refresh, nil
	}
	if err := w.hook(ctx, pod, c, created.ContainerId, c.Lifecycle.PostStart, time.Hour); err != nil {
		w.eventErr(ctx, "FailedPostStartHook", "Starting", fmt.Errorf("PostStartHook failed: %w", err), c.Name)
		grace := 30 * time.Second
		if g := pod.Spec.TerminationGracePeriodSeconds; g != nil {
			grace = time.Duration(*g) * time.Second
		}
		if f := w.kill(ctx, pod, lifecycle.Action{Op: lifecycle.Kill, ID: created.ContainerId, Name: c.Name, Grace: grace, Why: "FailedPostStartHook"}); f != nil {
			return refresh, f
		}
		return refresh, &lifecycle.Failure{Action: a, Reason: "PostStartHookError", Message: err.Error()}
	}
	return refresh, nil
}

// image makes sure of the image and returns the runtime's id of it.
func (w *worker) image(ctx context.Context, pod *corev1.Pod, c *corev1.Container, a lifecycle.Action) (pulled, *lifecycle.Failure) {
	img, err := w.k.pulls.ensure(ctx, pod, c, func(kind, reason, note string) {
		if ctx.Err() == nil {
			w.event(kind, reason, "Pulling", note, c.Name)
		}
	})
	if err == nil {
		return img, nil
	}
	return img, &lifecycle.Failure{Action: a, Reason: err.reason, Message: err.Error()}
}

// imageVolumes makes sure of the images that the container mounts, and puts
// the runtime's ids of them into places.
func (w *worker) imageVolumes(ctx context.Context, pod *corev1.Pod, c *corev1.Container, a lifecycle.Action, places map[string]volume.Place) *lifecycle.Failure {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		mounted := slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == v.Name })
		if v.Image == nil || !mounted {
			continue
		}
		img, f := w.image(ctx, pod, &corev1.Container{Name: c.Name, Image: v.Image.Reference, ImagePullPolicy: v.Image.PullPolicy}, a)
		if f != nil {
			return f
		}
		place := places[v.Name]
		place.Image = img.id
		places[v.Name] = place
	}
	return nil
}

// containerConfig gathers what the container is made of.
func (w *worker) containerConfig(ctx context.Context, pod *corev1.Pod, c *corev1.Container, a lifecycle.Action, img pulled, places map[string]volume.Place) (*runtimeapi.ContainerConfig, error) {
	services, err := w.k.services(pod)
	if err != nil {
		return nil, err
	}
	env, err := spec.MakeEnv(ctx, spec.EnvInput{
		Pod: pod, Container: c, Services: services, Objects: w.k.objects, Allocatable: w.k.node.allocatable(),
	})
	if err != nil {
		return nil, err
	}
	mounts, err := w.mounts(pod, c, env, places)
	if err != nil {
		return nil, err
	}
	more, err := w.ownMounts(pod, c, a.Attempt)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(w.k.specNode().PodLogDir(pod), c.Name), 0o755); err != nil {
		return nil, fmt.Errorf("make log directory: %w", err)
	}
	target, err := w.target(pod, c.Name)
	if err != nil {
		return nil, err
	}
	return spec.MakeContainer(spec.ContainerInput{
		Target: target, Pod: pod, Container: c, Attempt: a.Attempt, ImageRef: img.id, User: img.user, Env: env,
		Mounts: append(mounts, more...), Node: w.k.specNode(),
	})
}

// target is the running container that an ephemeral one looks into.
func (w *worker) target(pod *corev1.Pod, name string) (string, error) {
	i := slices.IndexFunc(pod.Spec.EphemeralContainers, func(e corev1.EphemeralContainer) bool { return e.Name == name })
	if i < 0 || pod.Spec.EphemeralContainers[i].TargetContainerName == "" {
		return "", nil
	}
	want := pod.Spec.EphemeralContainers[i].TargetContainerName
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.containers {
		if c.Name == want && c.State == lifecycle.Running {
			return c.ID, nil
		}
	}
	return "", fmt.Errorf("unable to find target container %q", want)
}

// mounts renders the container's volume mounts.
func (w *worker) mounts(pod *corev1.Pod, c *corev1.Container, env *spec.Env, places map[string]volume.Place) ([]*runtimeapi.Mount, error) {
	out := make([]*runtimeapi.Mount, 0, len(c.VolumeMounts))
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		place, ok := places[m.Name]
		if !ok {
			return nil, fmt.Errorf("cannot find volume %q to mount into container %q", m.Name, c.Name)
		}
		prop, err := spec.Propagation(m.MountPropagation)
		if err != nil {
			return nil, err
		}
		rm := &runtimeapi.Mount{
			ContainerPath: filepath.Join("/", m.MountPath), HostPath: place.Host, Readonly: m.ReadOnly || place.ReadOnly, Propagation: prop,
		}
		if place.Image != "" {
			rm.Image, rm.ImageSubPath = &runtimeapi.ImageSpec{Image: place.Image}, m.SubPath
			out = append(out, rm)
			continue
		}
		if r := m.RecursiveReadOnly; r != nil && *r == corev1.RecursiveReadOnlyEnabled {
			rm.RecursiveReadOnly = true
		}
		sub := m.SubPath
		if m.SubPathExpr != "" {
			sub = spec.Expand(m.SubPathExpr, env.Vars())
		}
		if sub != "" {
			rm.HostPath, err = w.k.volumes.SubPath(pod, m.Name, c.Name, i, place.Host, sub, rm.Readonly)
			if err != nil {
				return nil, fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", m.Name, c.Name, err)
			}
		}
		out = append(out, rm)
	}
	return out, nil
}

// ownMounts are /etc/hosts and the termination message, which the kubelet
// keeps.
func (w *worker) ownMounts(pod *corev1.Pod, c *corev1.Container, attempt int) ([]*runtimeapi.Mount, error) {
	var out []*runtimeapi.Mount
	dir := w.k.volumes.PodDir(pod.UID)
	if !mountsAt(c, "/etc/hosts") && (pod.Spec.HostNetwork || len(pod.Status.PodIPs) > 0) {
		path := filepath.Join(dir, "etc-hosts")
		ips := make([]string, len(pod.Status.PodIPs))
		for i, ip := range pod.Status.PodIPs {
			ips[i] = ip.IP
		}
		node, err := os.ReadFile("/etc/hosts")
		if err != nil && pod.Spec.HostNetwork && !os.IsNotExist(err) {
			return nil, fmt.Errorf("read hosts file: %w", err)
		}
		if err := writeFile(path, spec.Hosts(pod, ips, node, w.k.cfg.ClusterDomain)); err != nil {
			return nil, err
		}
		out = append(out, &runtimeapi.Mount{ContainerPath: "/etc/hosts", HostPath: path, SelinuxRelabel: true})
	}
	if c.TerminationMessagePath != "" && !mountsAt(c, c.TerminationMessagePath) {
		path := filepath.Join(dir, "containers", c.Name, fmt.Sprintf("message-%d", attempt))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, fmt.Errorf("make message directory: %w", err)
		}
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			return nil, fmt.Errorf("make message file: %w", err)
		}
		if err := os.Chmod(path, 0o666); err != nil { // WriteFile minds the umask
			return nil, fmt.Errorf("make message file: %w", err)
		}
		out = append(out, &runtimeapi.Mount{ContainerPath: c.TerminationMessagePath, HostPath: path, SelinuxRelabel: true})
	}
	return out, nil
}

func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}

func mountsAt(c *corev1.Container, path string) bool {
	for _, m := range c.VolumeMounts {
		if m.MountPath == path {
			return true
		}
	}
	return false
}

// services are those whose variables the pod gets.
func (k *Kubelet) services(pod *corev1.Pod) ([]*corev1.Service, error) {
	var out []*corev1.Service
	if s, err := k.serviceLister.Services(corev1.NamespaceDefault).Get("kubernetes"); err == nil {
		out = append(out, s)
	}
	if e := pod.Spec.EnableServiceLinks; e != nil && !*e {
		return out, nil
	}
	list, err := k.serviceLister.Services(pod.Namespace).List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list services: %w", err)
	}
	return append(out, list...), nil
}
