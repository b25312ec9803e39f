package critest

import (
	"context"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RunPodSandbox implements the runtime service. A name is taken while its
// sandbox is not removed.
func (r *Runtime) RunPodSandbox(_ context.Context, q *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := q.Config.GetMetadata()
	if m.GetName() == "" || m.Uid == "" || m.Namespace == "" {
		return nil, status.Error(codes.InvalidArgument, "sandbox config must include metadata")
	}
	if r.notReady != "" {
		return nil, status.Errorf(codes.Unknown, "failed to setup network for sandbox: %s", r.notReady)
	}
	for _, s := range r.sandboxes {
		if o := s.cfg.Metadata; o.Name == m.Name && o.Uid == m.Uid && o.Namespace == m.Namespace && o.Attempt == m.Attempt {
			return nil, status.Errorf(codes.Unknown, "failed to reserve sandbox name: is reserved for %q", s.id)
		}
	}
	s := &sandbox{id: r.idLocked("s"), cfg: q.Config, ready: true, created: r.nowLocked()}
	s.ip = "10.88.0." + strconv.Itoa(r.next%250+1)
	r.sandboxes[s.id] = s
	r.emitLocked(s, s.id, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: s.id}, nil
}

// StopPodSandbox implements the runtime service: it kills what is in there.
func (r *Runtime) StopPodSandbox(_ context.Context, q *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[q.PodSandboxId]
	if s == nil {
		return &runtimeapi.StopPodSandboxResponse{}, nil
	}
	for _, c := range r.containers {
		if c.sandbox == s.id {
			r.exitLocked(c, 137)
		}
	}
	s.ready = false
	r.emitLocked(s, s.id, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

// RemovePodSandbox implements the runtime service. A sandbox that was not
// stopped is refused.
func (r *Runtime) RemovePodSandbox(_ context.Context, q *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[q.PodSandboxId]
	if s == nil {
		return &runtimeapi.RemovePodSandboxResponse{}, nil
	}
	if s.ready {
		return nil, status.Errorf(codes.FailedPrecondition, "sandbox %q is not fully stopped", s.id)
	}
	for id, c := range r.containers {
		if c.sandbox == s.id {
			delete(r.containers, id)
		}
	}
	delete(r.sandboxes, s.id)
	r.emitLocked(s, s.id, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT)
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

// ListPodSandbox implements the runtime service.
func (r *Runtime) ListPodSandbox(_ context.Context, q *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &runtimeapi.ListPodSandboxResponse{}
	for _, s := range r.sandboxes {
		if !matches(s.cfg.Labels, q.Filter.GetLabelSelector()) {
			continue
		}
		st := s.status()
		out.Items = append(out.Items, &runtimeapi.PodSandbox{
			Id: s.id, Metadata: st.Metadata, State: st.State, CreatedAt: s.created, Labels: st.Labels, Annotations: st.Annotations,
		})
	}
	return out, nil
}

// PodSandboxStatus implements the runtime service.
func (r *Runtime) PodSandboxStatus(_ context.Context, q *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[q.PodSandboxId]
	if s == nil {
		return nil, notFound("sandbox", q.PodSandboxId)
	}
	return &runtimeapi.PodSandboxStatusResponse{Status: s.status()}, nil
}

// CreateContainer implements the runtime service. It wants a sandbox that
// lives, an image that is there and a name that is free.
func (r *Runtime) CreateContainer(_ context.Context, q *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[q.PodSandboxId]
	if s == nil {
		return nil, notFound("sandbox", q.PodSandboxId)
	}
	if !s.ready {
		return nil, status.Errorf(codes.Unknown, "sandbox container task is not running")
	}
	if q.SandboxConfig == nil {
		return nil, status.Error(codes.InvalidArgument, "sandbox config is required")
	}
	ref := q.Config.GetImage().GetImage()
	present := false
	for name := range r.images {
		present = present || ref == name || ref == "sha256:"+name
	}
	if !present {
		return nil, notFound("image", ref)
	}
	m := q.Config.GetMetadata()
	for _, c := range r.containers {
		if o := c.cfg.Metadata; c.sandbox == s.id && o.Name == m.Name && o.Attempt == m.Attempt {
			return nil, status.Errorf(codes.Unknown, "failed to reserve container name: is reserved for %q", c.id)
		}
	}
	c := &container{id: r.idLocked("c"), sandbox: s.id, cfg: q.Config, stop: make(chan struct{})}
	c.st = &runtimeapi.ContainerStatus{
		Id: c.id, Metadata: m, State: runtimeapi.ContainerState_CONTAINER_CREATED, CreatedAt: r.nowLocked(),
		Image: q.Config.Image, ImageRef: ref, Labels: q.Config.Labels, Annotations: q.Config.Annotations, Mounts: q.Config.Mounts,
		LogPath: s.cfg.LogDirectory + "/" + q.Config.LogPath,
	}
	r.containers[c.id] = c
	return &runtimeapi.CreateContainerResponse{ContainerId: c.id}, nil
}

// StartContainer implements the runtime service; only a created one starts.
func (r *Runtime) StartContainer(_ context.Context, q *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[q.ContainerId]
	if c == nil {
		return nil, notFound("container", q.ContainerId)
	}
	if c.st.State != runtimeapi.ContainerState_CONTAINER_CREATED {
		return nil, status.Errorf(codes.Unknown, "container is in %s state", c.st.State)
	}
	c.st.State, c.st.StartedAt = runtimeapi.ContainerState_CONTAINER_RUNNING, r.nowLocked()
	r.emitLocked(r.sandboxes[c.sandbox], c.id, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	if cmd := c.cfg.Command; len(cmd) == 2 && cmd[0] == "exit" {
		code, err := strconv.Atoi(cmd[1])
		if err != nil {
			code = 127
		}
		r.exitLocked(c, int32(code))
	}
	return &runtimeapi.StartContainerResponse{}, nil
}

// StopContainer implements the runtime service.
func (r *Runtime) StopContainer(ctx context.Context, q *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	r.mu.Lock()
	c := r.containers[q.ContainerId]
	if c == nil {
		r.mu.Unlock()
		return &runtimeapi.StopContainerResponse{}, nil
	}
	stubborn := len(c.cfg.Command) > 0 && c.cfg.Command[0] == "stubborn"
	if !stubborn || q.Timeout == 0 {
		code := int32(143)
		if q.Timeout == 0 {
			code = 137
		}
		r.exitLocked(c, code)
	}
	r.mu.Unlock()
	t := time.NewTimer(time.Duration(q.Timeout) * time.Second)
	defer t.Stop()
	select {
	case <-c.stop:
		return &runtimeapi.StopContainerResponse{}, nil
	case <-t.C:
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exitLocked(c, 137)
	return &runtimeapi.StopContainerResponse{}, nil
}

// UpdateContainerResources implements the runtime service.
func (r *Runtime) UpdateContainerResources(_ context.Context, q *runtimeapi.UpdateContainerResourcesRequest) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[q.ContainerId]
	if c == nil || c.st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return nil, notFound("running container", q.ContainerId)
	}
	c.resources = q.Linux
	return &runtimeapi.UpdateContainerResourcesResponse{}, nil
}

// RemoveContainer implements the runtime service.
func (r *Runtime) RemoveContainer(_ context.Context, q *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.containers[q.ContainerId]; c != nil {
		r.exitLocked(c, 137)
		delete(r.containers, c.id)
	}
	return &runtimeapi.RemoveContainerResponse{}, nil
}

// ListContainers implements the runtime service.
func (r *Runtime) ListContainers(_ context.Context, q *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &runtimeapi.ListContainersResponse{}
	for _, c := range r.containers {
		if !matches(c.cfg.Labels, q.Filter.GetLabelSelector()) {
			continue
		}
		out.Containers = append(out.Containers, &runtimeapi.Container{
			Id: c.id, PodSandboxId: c.sandbox, Metadata: c.cfg.Metadata, Image: c.cfg.Image, State: c.st.State,
			CreatedAt: c.st.CreatedAt, Labels: c.cfg.Labels, Annotations: c.cfg.Annotations,
		})
	}
	return out, nil
}

// ContainerStatus implements the runtime service.
func (r *Runtime) ContainerStatus(_ context.Context, q *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[q.ContainerId]
	if c == nil {
		return nil, notFound("container", q.ContainerId)
	}
	st := &runtimeapi.ContainerStatus{
		Id: c.st.Id, Metadata: c.st.Metadata, State: c.st.State, CreatedAt: c.st.CreatedAt, StartedAt: c.st.StartedAt,
		FinishedAt: c.st.FinishedAt, ExitCode: c.st.ExitCode, Image: c.st.Image, ImageRef: c.st.ImageRef, Reason: c.st.Reason,
		Labels: c.st.Labels, Annotations: c.st.Annotations, Mounts: c.st.Mounts, LogPath: c.st.LogPath,
	}
	return &runtimeapi.ContainerStatusResponse{Status: st}, nil
}

// ExecSync implements the runtime service.
func (r *Runtime) ExecSync(ctx context.Context, q *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	for tick := time.NewTicker(time.Millisecond); len(q.Cmd) == 2 && q.Cmd[0] == "await"; {
		if resp, err := r.execSync(&runtimeapi.ExecSyncRequest{ContainerId: q.ContainerId, Cmd: []string{"has", q.Cmd[1]}}); err != nil || resp.ExitCode == 0 {
			tick.Stop()
			return resp, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	return r.execSync(q)
}

func (r *Runtime) execSync(q *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[q.ContainerId]
	if c == nil || c.st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return nil, notFound("running container", q.ContainerId)
	}
	if len(q.Cmd) == 0 {
		return nil, status.Error(codes.InvalidArgument, "no command")
	}
	switch {
	case q.Cmd[0] == "true", q.Cmd[0] == "has" && len(q.Cmd) == 2 && r.files[q.Cmd[1]]:
		return &runtimeapi.ExecSyncResponse{}, nil
	default:
		return &runtimeapi.ExecSyncResponse{ExitCode: 1, Stderr: []byte(q.Cmd[0] + ": no")}, nil
	}
}
