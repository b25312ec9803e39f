// Package critest is a container runtime in memory that speaks CRI v1 over a
// unix socket and refuses what a runtime refuses.
//
// Its invariant: it never does what containerd would not do, so a kubelet
// that works on it has not been flattered.
package critest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Runtime is the server. A container's command is its behaviour:
//
//	sleep         runs until it is told to stop
//	stubborn      runs until it is killed
//	exit N        ends at once with code N
//
// ExecSync knows true, false, "has NAME", which succeeds while the file of
// that name was put with [Runtime.Put], and "await NAME", which waits for it.
type Runtime struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer
	server *grpc.Server

	mu         sync.Mutex // guards the fields below
	next       int
	last       int64
	sandboxes  map[string]*sandbox
	containers map[string]*container
	images     map[string]bool // present
	registry   map[string]bool // can be pulled
	files      map[string]bool
	notReady   string
	pulls      int
	memory     map[string]uint64 // by container's name; nil: no figures
	listeners  map[chan *runtimeapi.ContainerEventResponse]bool
}

type sandbox struct {
	id      string
	cfg     *runtimeapi.PodSandboxConfig
	ready   bool
	created int64
	ip      string
}

type container struct {
	id, sandbox string
	cfg         *runtimeapi.ContainerConfig
	st          *runtimeapi.ContainerStatus
	resources   *runtimeapi.LinuxContainerResources // as last updated
	stop        chan struct{}                       // closed at exit
}

// Listen serves a new runtime on the unix socket at path. images are those
// that its registry has. Close ends it.
func Listen(ctx context.Context, path string, images ...string) (*Runtime, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	r := &Runtime{
		server: grpc.NewServer(), sandboxes: map[string]*sandbox{}, containers: map[string]*container{},
		images: map[string]bool{}, registry: map[string]bool{}, files: map[string]bool{},
		listeners: map[chan *runtimeapi.ContainerEventResponse]bool{},
	}
	for _, i := range images {
		r.registry[i] = true
	}
	runtimeapi.RegisterRuntimeServiceServer(r.server, r)
	runtimeapi.RegisterImageServiceServer(r.server, r)
	go func() { _ = r.server.Serve(l) }() // ends with Close
	return r, nil
}

// Close ends the server and forgets everything.
func (r *Runtime) Close() { r.server.Stop() }

// Put makes "has name" succeed or fail in all containers.
func (r *Runtime) Put(name string, there bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files[name] = there
}

// AddImage makes an image pullable.
func (r *Runtime) AddImage(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.registry[name] = true
}

// Break makes the network not ready for that reason; empty repairs it.
func (r *Runtime) Break(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notReady = reason
}

// Pulls counts the pulls that were asked for.
func (r *Runtime) Pulls() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pulls
}

// Crash ends a running container of that name with a code.
func (r *Runtime) Crash(name string, code int32) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		if c.cfg.Metadata.Name == name && c.st.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			r.exitLocked(c, code)
			return nil
		}
	}
	return errors.New("no such running container")
}

// CrashSandboxes ends all sandboxes and what is in them, as a reboot does.
func (r *Runtime) CrashSandboxes() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sandboxes {
		s.ready = false
		r.emitLocked(s, s.id, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	}
	for _, c := range r.containers {
		r.exitLocked(c, 255)
	}
}

// Containers returns the ids of running containers by name.
func (r *Runtime) Containers() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]string{}
	for id, c := range r.containers {
		if c.st.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			out[c.cfg.Metadata.Name] = id
		}
	}
	return out
}

// Left counts what the runtime still holds, dead or alive.
func (r *Runtime) Left() (sandboxes, containers int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sandboxes), len(r.containers)
}

// Config returns how a container of that name was created, the newest.
func (r *Runtime) Config(name string) *runtimeapi.ContainerConfig {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found *container
	for _, c := range r.containers {
		if c.cfg.Metadata.Name == name && (found == nil || found.st.CreatedAt < c.st.CreatedAt) {
			found = c
		}
	}
	if found == nil {
		return nil
	}
	return found.cfg
}

// Updated returns the resources that the running container of that name was
// last given, nil if it has those it was created with.
func (r *Runtime) Updated(name string) *runtimeapi.LinuxContainerResources {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		if c.cfg.Metadata.Name == name && c.st.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			return c.resources
		}
	}
	return nil
}

// nowLocked is a clock that never stands still.
func (r *Runtime) nowLocked() int64 {
	r.last = max(r.last+1, time.Now().UnixNano())
	return r.last
}

func (r *Runtime) idLocked(kind string) string {
	r.next++
	return kind + strconv.Itoa(r.next)
}

func (r *Runtime) exitLocked(c *container, code int32) {
	if c.st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return
	}
	c.st.State, c.st.ExitCode, c.st.FinishedAt = runtimeapi.ContainerState_CONTAINER_EXITED, code, r.nowLocked()
	c.st.Reason = "Error"
	if code == 0 {
		c.st.Reason = "Completed"
	}
	close(c.stop)
	if s := r.sandboxes[c.sandbox]; s != nil {
		r.emitLocked(s, c.id, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	}
}

func (r *Runtime) emitLocked(s *sandbox, id string, t runtimeapi.ContainerEventType) {
	e := &runtimeapi.ContainerEventResponse{ContainerId: id, ContainerEventType: t, PodSandboxStatus: s.status()}
	for ch := range r.listeners {
		select {
		case ch <- e:
		default: // a slow listener loses events, as it does with containerd
		}
	}
}

func (s *sandbox) status() *runtimeapi.PodSandboxStatus {
	st := &runtimeapi.PodSandboxStatus{
		Id: s.id, Metadata: s.cfg.Metadata, CreatedAt: s.created, Labels: s.cfg.Labels, Annotations: s.cfg.Annotations,
		State: runtimeapi.PodSandboxState_SANDBOX_NOTREADY,
	}
	if s.ready {
		st.State = runtimeapi.PodSandboxState_SANDBOX_READY
		st.Network = &runtimeapi.PodSandboxNetworkStatus{Ip: s.ip}
	}
	return st
}

func notFound(what, id string) error {
	return status.Errorf(codes.NotFound, "%s %q not found", what, id)
}

// matches reports whether labels have all of sel.
func matches(labels, sel map[string]string) bool {
	for k, v := range sel {
		if labels[k] != v {
			return false
		}
	}
	return true
}

// GetContainerEvents implements the runtime service.
func (r *Runtime) GetContainerEvents(_ *runtimeapi.GetEventsRequest, s grpc.ServerStreamingServer[runtimeapi.ContainerEventResponse]) error {
	ch := make(chan *runtimeapi.ContainerEventResponse, 100)
	r.mu.Lock()
	r.listeners[ch] = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.listeners, ch)
	}()
	for {
		select {
		case e := <-ch:
			if err := s.Send(e); err != nil {
				return err
			}
		case <-s.Context().Done():
			return nil
		}
	}
}

// Version implements the runtime service.
func (r *Runtime) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "critest", RuntimeVersion: "1", RuntimeApiVersion: "v1"}, nil
}

// Status implements the runtime service.
func (r *Runtime) Status(context.Context, *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true},
		{Type: runtimeapi.NetworkReady, Status: r.notReady == "", Reason: "NetworkPluginNotReady", Message: r.notReady},
	}}}, nil
}

// ImageStatus implements the image service.
func (r *Runtime) ImageStatus(_ context.Context, q *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := q.Image.GetImage()
	if !r.images[name] {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	return &runtimeapi.ImageStatusResponse{Image: &runtimeapi.Image{Id: "sha256:" + name, RepoTags: []string{name}, Size: 1}}, nil
}

// PullImage implements the image service.
func (r *Runtime) PullImage(_ context.Context, q *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pulls++
	name := q.Image.GetImage()
	if !r.registry[name] {
		return nil, status.Errorf(codes.NotFound, "failed to pull and unpack image %q: not found", name)
	}
	r.images[name] = true
	return &runtimeapi.PullImageResponse{ImageRef: "sha256:" + name}, nil
}

// ListImages implements the image service.
func (r *Runtime) ListImages(context.Context, *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &runtimeapi.ListImagesResponse{}
	for name := range maps.Keys(r.images) {
		out.Images = append(out.Images, &runtimeapi.Image{Id: "sha256:" + name, RepoTags: []string{name}, Size: 1})
	}
	return out, nil
}
