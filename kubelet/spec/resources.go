package spec

import (
	"path"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The kernel's units of CPU: shares a core, and the period of quotas in
// microseconds; less than two shares or 1 ms of quota the kernel refuses.
const (
	sharesPerCPU = 1024
	minShares    = 2
	maxShares    = 262144
	quotaPeriod  = 100_000
	minQuota     = 1000
)

// QOS returns the pod's class of service, the API's if it has one.
func QOS(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	any, guaranteed := false, true
	all := append(append([]corev1.Container{}, pod.Spec.InitContainers...), pod.Spec.Containers...)
	for i := range all {
		r := &all[i].Resources
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			limit, request := r.Limits[name], r.Requests[name]
			any = any || !limit.IsZero() || !request.IsZero()
			if limit.IsZero() || (!request.IsZero() && request.Cmp(limit) != 0) {
				guaranteed = false
			}
		}
	}
	switch {
	case !any:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	default:
		return corev1.PodQOSBurstable
	}
}

// CgroupParent is the pod's cgroup below root, the same path in each
// hierarchy.
func CgroupParent(root string, pod *corev1.Pod) string {
	p := path.Join("/", root, "kubepods")
	switch QOS(pod) {
	case corev1.PodQOSBurstable:
		p = path.Join(p, "burstable")
	case corev1.PodQOSBestEffort:
		p = path.Join(p, "besteffort")
	default:
	}
	return path.Join(p, "pod"+string(pod.UID))
}

// Shares converts milli-CPUs to shares.
func Shares(milli int64) int64 {
	return min(max(milli*sharesPerCPU/1000, minShares), maxShares)
}

// Quota converts a limit in milli-CPUs to a quota, 0 for none.
func Quota(milli int64) int64 {
	if milli == 0 {
		return 0
	}
	return max(milli*quotaPeriod/1000, minQuota)
}

// PodResources are the limits of the pod's own cgroup: a limit holds for the
// pod only if every container has one.
func PodResources(pod *corev1.Pod) *runtimeapi.LinuxContainerResources {
	requests := resource.PodRequests(pod, resource.PodResourcesOptions{})
	limits := resource.PodLimits(pod, resource.PodResourcesOptions{})
	out := &runtimeapi.LinuxContainerResources{CpuPeriod: quotaPeriod, CpuShares: Shares(requests.Cpu().MilliValue())}
	cpu, memory := true, true
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			cpu = cpu && !list[i].Resources.Limits.Cpu().IsZero()
			memory = memory && !list[i].Resources.Limits.Memory().IsZero()
		}
	}
	if r := pod.Spec.Resources; r != nil {
		cpu = cpu || !r.Limits.Cpu().IsZero()
		memory = memory || !r.Limits.Memory().IsZero()
	}
	if cpu {
		out.CpuQuota = Quota(limits.Cpu().MilliValue())
	}
	if memory {
		out.MemoryLimitInBytes = limits.Memory().Value()
	}
	return out
}

// ContainerResources are one container's limits. unified says that the node
// has cgroup v2; capacity is the node's memory in bytes.
func ContainerResources(pod *corev1.Pod, c *corev1.Container, capacity int64, unified bool) *runtimeapi.LinuxContainerResources {
	request, limit := c.Resources.Requests.Cpu().MilliValue(), c.Resources.Limits.Cpu().MilliValue()
	if _, set := c.Resources.Requests[corev1.ResourceCPU]; !set {
		request = limit
	}
	out := &runtimeapi.LinuxContainerResources{
		CpuPeriod: quotaPeriod, CpuQuota: Quota(limit), CpuShares: Shares(request),
		MemoryLimitInBytes: c.Resources.Limits.Memory().Value(),
		OomScoreAdj:        oomScore(pod, c, capacity),
	}
	if unified {
		out.Unified = map[string]string{"memory.oom.group": "1"}
	}
	return out
}

// oomScore makes the kernel kill best-effort containers first and guaranteed
// ones last; between them, who asked for more memory goes later.
func oomScore(pod *corev1.Pod, c *corev1.Container, capacity int64) int64 {
	const guaranteed, bestEffort, nodeCritical = -997, 1000, 2_000_001_000
	if p := pod.Spec.Priority; p != nil && *p >= nodeCritical {
		return guaranteed
	}
	switch QOS(pod) {
	case corev1.PodQOSGuaranteed:
		return guaranteed
	case corev1.PodQOSBestEffort:
		return bestEffort
	default:
	}
	request := c.Resources.Requests.Memory().Value()
	if capacity <= 0 {
		return bestEffort - 1
	}
	return min(max(1000-1000*request/capacity, 1000+guaranteed), bestEffort-1)
}
