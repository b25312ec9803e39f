package lifecycle

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Resized says what of a running container's limits is not what the node has
// given it.
type Resized struct{ CPU, Memory bool }

// resizing is the key of what waits when limits could not be changed; no
// container has that name.
const resizing = "\x00resize"

// planResize gives running containers their new limits: in place, or by a new
// start where the container says that it must hear of them so.
func (v *view) planResize() {
	if v.waitsFor(resizing) {
		return
	}
	for _, s := range v.all {
		c := v.latest[s.Name]
		if c == nil || c.State != Running {
			continue
		}
		if r, ok := v.in.Resized[c.ID]; !ok {
			continue
		} else if restartsFor(s, r) {
			v.killOne(c, v.podGrace(), "Container "+s.Name+" resize requires restart")
		} else {
			v.act(Action{Op: Resize, ID: c.ID, Name: s.Name})
		}
	}
	if v.in.PodResized && len(v.in.Resized) == 0 {
		v.act(Action{Op: Resize})
	}
}

func restartsFor(s *corev1.Container, r Resized) bool {
	return slices.ContainsFunc(s.ResizePolicy, func(p corev1.ContainerResizePolicy) bool {
		return p.RestartPolicy == corev1.RestartContainer &&
			(r.CPU && p.ResourceName == corev1.ResourceCPU || r.Memory && p.ResourceName == corev1.ResourceMemory)
	})
}

// resources tells what the container has. While that is being changed it is
// what was last told.
func (v *view) resources(st *corev1.ContainerStatus, c *Container) {
	given, ok := v.in.Given[st.Name]
	if !ok {
		return
	}
	st.AllocatedResources = given.Requests.DeepCopy()
	if _, changing := v.in.Resized[c.ID]; changing {
		if r := v.reported(st.Name); r != nil && r.Resources != nil {
			st.Resources = r.Resources.DeepCopy()
			return
		}
	}
	st.Resources = given.DeepCopy()
}

// resizeConditions say that the node has not given what the pod asks for, or
// is about to.
func (v *view) resizeConditions(st *corev1.PodStatus) {
	for t, on := range map[corev1.PodConditionType]bool{
		corev1.PodResizePending:    v.in.Pending != nil,
		corev1.PodResizeInProgress: len(v.in.Resized) > 0 || v.in.PodResized,
	} {
		if !on {
			st.Conditions = slices.DeleteFunc(st.Conditions, func(c corev1.PodCondition) bool { return c.Type == t })
		}
	}
	if p := v.in.Pending; p != nil {
		v.set(st, corev1.PodResizePending, true, p.Reason, p.Message)
	}
	if len(v.in.Resized) > 0 || v.in.PodResized {
		v.set(st, corev1.PodResizeInProgress, true, "", "")
	}
}
