package kubelet

import (
	"context"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skein.dev/skein/kubelet/cgroup"
	"skein.dev/skein/kubelet/lifecycle"
	"skein.dev/skein/kubelet/spec"
)

// resources is what one pod has been given of the node. A pod may ask for
// other amounts while it runs (KEP-1287); until the node has said yes, and
// for as long as it has not, the old ones hold.
type resources struct {
	given   map[string]corev1.ResourceRequirements // by container
	todo    map[string]lifecycle.Resized           // given, and not yet told the runtime
	pending *lifecycle.Rejection
	pod     *runtimeapi.LinuxContainerResources // what the pod's cgroup has, if it is to change
}

// settle decides about what the pod asks for and returns the pod with what it
// has been given. What the API was last told counts for a pod that ran before.
func (k *Kubelet) settle(ctx context.Context, w *worker, pod *corev1.Pod) *corev1.Pod {
	w.mu.Lock()
	if w.res.given == nil {
		w.res.given, w.res.todo = map[string]corev1.ResourceRequirements{}, map[string]lifecycle.Resized{}
		for c := range spec.Containers(pod) {
			w.res.given[c.Name] = told(pod, c)
		}
	}
	for c := range spec.Containers(pod) {
		if _, ok := w.res.given[c.Name]; !ok { // an ephemeral one has come
			w.res.given[c.Name] = c.Resources
		}
	}
	before := w.res.with(pod)
	admitted := w.admitted
	w.mu.Unlock()
	if before == pod {
		w.hold(nil)
		return pod
	}
	if admitted {
		if pending := k.refuseResize(w, pod); pending != nil {
			w.hold(pending)
			return before
		}
	}
	k.log.DebugContext(ctx, "pod is given other resources", "pod", w.name())
	w.give(before, pod)
	return pod
}

// told is what the API was told that a container has, else what it asks for.
func told(pod *corev1.Pod, c *corev1.Container) corev1.ResourceRequirements {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range list {
			if st := &list[i]; st.Name == c.Name && st.Resources != nil && st.State.Running != nil {
				return *st.Resources.DeepCopy()
			}
		}
	}
	return c.Resources
}

// with is the pod with what it has been given: the pod itself where that is
// what it asks for.
func (r *resources) with(pod *corev1.Pod) *corev1.Pod {
	out := pod
	for c := range spec.Containers(pod) {
		given, ok := r.given[c.Name]
		if !ok || equality.Semantic.DeepEqual(amounts(given), amounts(c.Resources)) {
			continue
		}
		if out == pod {
			out = pod.DeepCopy()
		}
		spec.Container(out, c.Name).Resources = given
	}
	return out
}

// amounts are what may change of a running container.
func amounts(r corev1.ResourceRequirements) [4]string {
	text := func(l corev1.ResourceList, n corev1.ResourceName) string {
		q, ok := l[n]
		if !ok {
			return ""
		}
		return q.String()
	}
	return [4]string{
		text(r.Requests, corev1.ResourceCPU), text(r.Requests, corev1.ResourceMemory),
		text(r.Limits, corev1.ResourceCPU), text(r.Limits, corev1.ResourceMemory),
	}
}

// refuseResize says why the pod cannot have what it asks for now.
func (k *Kubelet) refuseResize(w *worker, pod *corev1.Pod) *lifecycle.Rejection {
	k.admitting.Lock()
	defer k.admitting.Unlock()
	room := k.node.allocatable()
	reason, message := refuseRoom(pod, k.admitted(w), room)
	if reason == "" {
		return nil
	}
	if never, why := refuseRoom(pod, nil, room); never != "" {
		return &lifecycle.Rejection{Reason: corev1.PodReasonInfeasible, Message: why}
	}
	return &lifecycle.Rejection{Reason: corev1.PodReasonDeferred, Message: message}
}

func (w *worker) hold(why *lifecycle.Rejection) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.res.pending = why
}

// give notes that the node gives the pod what it asks for, and what of that
// the runtime must be told.
func (w *worker) give(before, pod *corev1.Pod) {
	n := w.k.specNode()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.res.pending = nil
	for c := range spec.Containers(pod) {
		old := spec.ContainerResources(before, spec.Container(before, c.Name), n.Memory, n.Unified)
		now := spec.ContainerResources(pod, c, n.Memory, n.Unified)
		todo := w.res.todo[c.Name]
		todo.CPU = todo.CPU || old.CpuShares != now.CpuShares || old.CpuQuota != now.CpuQuota
		todo.Memory = todo.Memory || old.MemoryLimitInBytes != now.MemoryLimitInBytes
		if todo != (lifecycle.Resized{}) {
			w.res.todo[c.Name] = todo
		}
		w.res.given[c.Name] = *c.Resources.DeepCopy()
	}
	if w.res.pod == nil {
		w.res.pod = spec.PodResources(before)
	}
}

// tellResources adds what the pod has been given to the machine's input.
func (w *worker) tellResources(in *lifecycle.Input) {
	w.mu.Lock()
	defer w.mu.Unlock()
	in.Given, in.Pending, in.PodResized = maps.Clone(w.res.given), w.res.pending, w.res.pod != nil
	in.Resized = map[string]lifecycle.Resized{}
	for i := range in.Containers {
		c := &in.Containers[i]
		if r, ok := w.res.todo[c.Name]; ok && c.State == lifecycle.Running {
			in.Resized[c.ID] = r
		}
	}
}

// resize tells the runtime of one container's new limits, or without a
// container brings the pod's own cgroup to what it has been given.
func (w *worker) resize(ctx context.Context, pod *corev1.Pod, a lifecycle.Action) error {
	n := w.k.specNode()
	if a.ID == "" {
		if err := w.ensureCgroup(pod, n); err != nil {
			return err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.res.todo) == 0 { // else there is more to come
			w.res.pod = nil
		}
		return nil
	}
	if err := w.widen(pod, n); err != nil {
		return err
	}
	r := spec.ContainerResources(pod, spec.Container(pod, a.Name), n.Memory, n.Unified)
	if r.CpuQuota == 0 {
		r.CpuQuota = -1 // zero says nothing, and it may have had one
	}
	if _, err := w.k.runtime.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: a.ID, Linux: r}); err != nil {
		return err
	}
	w.resized(pod, a.Name)
	return nil
}

// resized notes that a container has what pod says, unless it has been given
// something else since.
func (w *worker) resized(pod *corev1.Pod, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := spec.Container(pod, name); c != nil && amounts(c.Resources) == amounts(w.res.given[name]) {
		delete(w.res.todo, name)
	}
}

// widen makes the pod's cgroup, if it is to change, as wide as the wider of
// what it has and what it shall have: containers change one by one in it.
func (w *worker) widen(pod *corev1.Pod, n spec.Node) error {
	w.mu.Lock()
	has := w.res.pod
	w.mu.Unlock()
	if has == nil {
		return nil
	}
	shall := spec.PodResources(pod)
	wider := func(a, b int64) int64 { // zero is none
		if a == 0 || b == 0 {
			return 0
		}
		return max(a, b)
	}
	return w.k.cgroups.Ensure(spec.CgroupParent(n.CgroupRoot, pod), cgroup.Limits{
		CPUShares: max(has.CpuShares, shall.CpuShares), CPUPeriod: shall.CpuPeriod,
		CPUQuota: wider(has.CpuQuota, shall.CpuQuota), MemoryBytes: wider(has.MemoryLimitInBytes, shall.MemoryLimitInBytes),
	})
}
