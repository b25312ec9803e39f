package critest

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Use makes every container of the name use so many bytes of memory, and so
// its pod; until the first call the runtime tells no figures at all.
func (r *Runtime) Use(container string, bytes uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.memory == nil {
		r.memory = map[string]uint64{}
	}
	r.memory[container] = bytes
}

// ListPodSandboxStats tells the memory of pods that match the filter's labels.
func (r *Runtime) ListPodSandboxStats(_ context.Context, q *runtimeapi.ListPodSandboxStatsRequest) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.memory == nil {
		return nil, status.Error(codes.Unavailable, "no figures yet")
	}
	out := &runtimeapi.ListPodSandboxStatsResponse{}
	for _, s := range r.sandboxes {
		if !matches(s.cfg.Labels, q.GetFilter().GetLabelSelector()) {
			continue
		}
		sum := uint64(0)
		linux := &runtimeapi.LinuxPodSandboxStats{}
		for _, c := range r.containers {
			if c.sandbox != s.id || c.st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
				continue
			}
			used := r.memory[c.cfg.Metadata.Name]
			sum += used
			linux.Containers = append(linux.Containers, &runtimeapi.ContainerStats{
				Attributes: &runtimeapi.ContainerAttributes{Id: c.id, Metadata: c.cfg.Metadata, Labels: c.cfg.Labels},
				Memory:     &runtimeapi.MemoryUsage{WorkingSetBytes: &runtimeapi.UInt64Value{Value: used}},
			})
		}
		linux.Memory = &runtimeapi.MemoryUsage{WorkingSetBytes: &runtimeapi.UInt64Value{Value: sum}}
		out.Stats = append(out.Stats, &runtimeapi.PodSandboxStats{
			Attributes: &runtimeapi.PodSandboxAttributes{Id: s.id, Metadata: s.cfg.Metadata, Labels: s.cfg.Labels}, Linux: linux,
		})
	}
	return out, nil
}
