package cri

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skein.dev/skein/kubelet/lifecycle"
)

// exitCache remembers containers that have ended: their state is final.
type exitCache struct {
	mu   sync.Mutex // guards the fields below
	byID map[string]*runtimeapi.ContainerStatus
}

func (c *exitCache) get(id string) *runtimeapi.ContainerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byID[id]
}

func (c *exitCache) put(s *runtimeapi.ContainerStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byID == nil {
		c.byID = map[string]*runtimeapi.ContainerStatus{}
	}
	c.byID[s.Id] = s
}

func (c *exitCache) drop(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byID, id)
}

// Held is a pod that the runtime holds something of.
type Held struct {
	UID             types.UID
	Namespace, Name string
	// Grace is the pod's termination grace when it was made, 30 s if unknown.
	Grace time.Duration
	// Running names the containers with a process, by id; States has all.
	States map[string]runtimeapi.ContainerState
	// Sandboxes are ready or not, by id.
	Sandboxes map[string]runtimeapi.PodSandboxState
}

// List returns all pods of this node in the runtime.
func (c *Client) List(ctx context.Context) (map[types.UID]*Held, error) {
	sel := map[string]string{LabelNode: c.node}
	sandboxes, err := c.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: sel}})
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	containers, err := c.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{LabelSelector: sel}})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	out := map[types.UID]*Held{}
	pod := func(labels, annotations map[string]string) *Held {
		uid := types.UID(labels[LabelPodUID])
		h := out[uid]
		if h == nil {
			h = &Held{
				UID: uid, Namespace: labels[LabelPodNamespace], Name: labels[LabelPodName], Grace: 30 * time.Second,
				States: map[string]runtimeapi.ContainerState{}, Sandboxes: map[string]runtimeapi.PodSandboxState{},
			}
			out[uid] = h
		}
		if s, err := strconv.Atoi(annotations[AnnotationGrace]); err == nil {
			h.Grace = time.Duration(s) * time.Second
		}
		return h
	}
	for _, s := range sandboxes.Items {
		pod(s.Labels, s.Annotations).Sandboxes[s.Id] = s.State
	}
	for _, k := range containers.Containers {
		pod(k.Labels, k.Annotations).States[k.Id] = k.State
	}
	delete(out, "")
	return out, nil
}

// Pod returns what the runtime holds of one pod, newest first.
func (c *Client) Pod(ctx context.Context, uid types.UID) ([]lifecycle.Sandbox, []lifecycle.Container, error) {
	sel := map[string]string{LabelPodUID: string(uid), LabelNode: c.node}
	sandboxes, err := c.sandboxes(ctx, sel)
	if err != nil {
		return nil, nil, err
	}
	list, err := c.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{LabelSelector: sel}})
	if err != nil {
		return nil, nil, fmt.Errorf("list containers: %w", err)
	}
	containers := make([]lifecycle.Container, 0, len(list.Containers))
	for _, k := range list.Containers {
		st, err := c.container(ctx, k)
		if IsNotFound(err) {
			continue // removed between the two calls
		}
		if err != nil {
			return nil, nil, err
		}
		containers = append(containers, convert(k, st))
	}
	slices.SortStableFunc(containers, func(a, b lifecycle.Container) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.Attempt, a.Attempt))
	})
	return sandboxes, containers, nil
}

func (c *Client) sandboxes(ctx context.Context, sel map[string]string) ([]lifecycle.Sandbox, error) {
	list, err := c.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: sel}})
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	out := make([]lifecycle.Sandbox, 0, len(list.Items))
	for _, s := range list.Items {
		sb := lifecycle.Sandbox{
			ID: s.Id, Attempt: int(s.Metadata.GetAttempt()), CreatedAt: time.Unix(0, s.CreatedAt),
			Ready: s.State == runtimeapi.PodSandboxState_SANDBOX_READY,
		}
		if sb.Ready {
			r, err := c.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: s.Id})
			if IsNotFound(err) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("read sandbox %s: %w", s.Id, err)
			}
			sb.IPs = addresses(r.Status.GetNetwork())
		}
		out = append(out, sb)
	}
	slices.SortStableFunc(out, func(a, b lifecycle.Sandbox) int {
		return cmp.Or(cmp.Compare(b.Attempt, a.Attempt), b.CreatedAt.Compare(a.CreatedAt))
	})
	return out, nil
}

func addresses(n *runtimeapi.PodSandboxNetworkStatus) []string {
	if n.GetIp() == "" {
		return nil
	}
	ips := []string{n.Ip}
	for _, a := range n.AdditionalIps {
		ips = append(ips, a.Ip)
	}
	return ips
}

// container reads one container's status, from memory once it has ended.
func (c *Client) container(ctx context.Context, k *runtimeapi.Container) (*runtimeapi.ContainerStatus, error) {
	if st := c.exits.get(k.Id); st != nil {
		return st, nil
	}
	r, err := c.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: k.Id})
	if err != nil {
		if IsNotFound(err) {
			return nil, err
		}
		return nil, fmt.Errorf("read container %s: %w", k.Id, err)
	}
	st := r.Status
	if st.State == runtimeapi.ContainerState_CONTAINER_EXITED {
		addMessage(st)
		c.exits.put(st)
	}
	return st, nil
}

// Forget drops what is remembered of a removed container.
func (c *Client) Forget(id string) { c.exits.drop(id) }

func convert(k *runtimeapi.Container, st *runtimeapi.ContainerStatus) lifecycle.Container {
	attempt, err := strconv.Atoi(st.Annotations[AnnotationRestartCount])
	if err != nil {
		attempt = int(st.Metadata.GetAttempt())
	}
	out := lifecycle.Container{
		ID: st.Id, Name: st.Labels[LabelContainerName], SandboxID: k.PodSandboxId, Attempt: attempt,
		Hash: st.Annotations[AnnotationHash], Image: st.Image.GetImage(), ImageID: st.ImageRef,
		CreatedAt: time.Unix(0, st.CreatedAt),
		ExitCode:  st.ExitCode, Reason: st.Reason, Message: st.Message,
	}
	if u := st.Image.GetUserSpecifiedImage(); u != "" {
		out.Image = u
	}
	if st.StartedAt > 0 {
		out.StartedAt = time.Unix(0, st.StartedAt)
	}
	if st.FinishedAt > 0 {
		out.FinishedAt = time.Unix(0, st.FinishedAt)
	}
	switch st.State {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		out.State = lifecycle.Created
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		out.State = lifecycle.Running
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		out.State = lifecycle.Exited
	default:
		out.State = lifecycle.Unknown
	}
	return out
}
