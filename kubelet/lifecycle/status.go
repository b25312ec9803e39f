package lifecycle

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// stamp is a time as the API keeps it: whole seconds, so that a status equals
// itself after a round trip.
func stamp(t time.Time) metav1.Time {
	if t.IsZero() {
		return metav1.Time{}
	}
	return metav1.NewTime(t.Truncate(time.Second))
}

// status computes the pod's whole status. What others own of it (conditions
// of the scheduler, readiness gates, the nominated node) is carried over.
func (v *view) status() corev1.PodStatus {
	st := *v.pod.Status.DeepCopy()
	start := stamp(v.m.started)
	st.StartTime = &start
	st.ObservedGeneration = v.pod.Generation
	v.addresses(&st)
	st.InitContainerStatuses = nil
	st.ContainerStatuses = nil
	initsDone := v.initialized()
	for i := range v.pod.Spec.InitContainers {
		s := &v.pod.Spec.InitContainers[i]
		st.InitContainerStatuses = append(st.InitContainerStatuses, v.container(s, ReasonPodInitializing, true))
	}
	reason := ReasonContainerCreating
	if len(v.inits) > 0 && !initsDone {
		reason = ReasonPodInitializing
	}
	for i := range v.pod.Spec.Containers {
		st.ContainerStatuses = append(st.ContainerStatuses, v.container(&v.pod.Spec.Containers[i], reason, false))
	}
	st.EphemeralContainerStatuses = nil
	for _, s := range v.ephemeral {
		c := v.container(s, ReasonContainerCreating, false)
		c.Ready = false // nobody waits for it
		st.EphemeralContainerStatuses = append(st.EphemeralContainerStatuses, c)
	}
	st.Phase = v.phase(&st, initsDone)
	if f := v.m.failed; f != nil && v.pod.Status.Phase != corev1.PodSucceeded {
		st.Phase, st.Reason, st.Message = corev1.PodFailed, f.Reason, f.Message
	}
	v.deferEnd(&st)
	v.conditions(&st, initsDone)
	return st
}

// deferEnd keeps a phase that ends from being told while a container still
// runs: whoever sees it may start the pod's replacement.
func (v *view) deferEnd(st *corev1.PodStatus) {
	if st.Phase != corev1.PodSucceeded && st.Phase != corev1.PodFailed {
		return
	}
	for i := range v.in.Containers {
		if running(&v.in.Containers[i]) {
			st.Phase, st.Reason, st.Message = v.pod.Status.Phase, v.pod.Status.Reason, v.pod.Status.Message
			return
		}
	}
}

// addresses fills the pod's and the node's addresses, first family first.
func (v *view) addresses(st *corev1.PodStatus) {
	if len(v.in.HostIPs) > 0 {
		st.HostIP, st.HostIPs = v.in.HostIPs[0], nil
		for _, ip := range v.in.HostIPs {
			st.HostIPs = append(st.HostIPs, corev1.HostIP{IP: ip})
		}
	}
	var ips []string
	switch {
	case v.pod.Spec.HostNetwork && v.sandbox != nil:
		ips = v.in.HostIPs
	case v.live:
		ips = v.sandbox.IPs
	default:
		return // a stopped pod keeps the address that it had
	}
	if len(ips) == 0 {
		return
	}
	st.PodIP, st.PodIPs = ips[0], nil
	for _, ip := range ips {
		st.PodIPs = append(st.PodIPs, corev1.PodIP{IP: ip})
	}
}

// reported returns what the API holds of a container.
func (v *view) reported(name string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{
		v.pod.Status.ContainerStatuses, v.pod.Status.InitContainerStatuses, v.pod.Status.EphemeralContainerStatuses,
	} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// isStarted reports whether c is past its postStart hook and its startup
// probe, where it has them.
func (v *view) isStarted(s *corev1.Container, c *Container) bool {
	if c.State != Running || v.in.Hooked[c.ID] {
		return false
	}
	if s.StartupProbe == nil {
		return true
	}
	if p := v.in.Probes[c.ID].Started; p != nil {
		return *p
	}
	r := v.reported(s.Name)
	return r != nil && r.ContainerID == v.containerID(c) && r.Started != nil && *r.Started
}

// isReady reports whether c may get traffic.
func (v *view) isReady(s *corev1.Container, c *Container) bool {
	if !v.isStarted(s, c) {
		return false
	}
	if s.ReadinessProbe == nil {
		return true
	}
	if p := v.in.Probes[c.ID].Ready; p != nil {
		return *p
	}
	r := v.reported(s.Name)
	return r != nil && r.ContainerID == v.containerID(c) && r.Ready
}

// containerID is the API's form of a runtime's id.
func (v *view) containerID(c *Container) string { return v.in.Runtime + "://" + c.ID }

// container computes one container's status.
func (v *view) container(s *corev1.Container, idle string, isInit bool) corev1.ContainerStatus {
	no := false
	st := corev1.ContainerStatus{Name: s.Name, Image: s.Image, Started: &no}
	c := v.latest[s.Name]
	if c == nil {
		v.unseen(&st, s, idle)
		return st
	}
	st.ContainerID, st.ImageID = v.containerID(c), c.ImageID
	if c.Image != "" {
		st.Image = c.Image
	}
	st.RestartCount = int32(c.Attempt)
	v.resources(&st, c)
	if p := v.previous[s.Name]; p != nil && p.State == Exited {
		st.LastTerminationState.Terminated = v.terminated(p)
	} else if r := v.reported(s.Name); r != nil && r.ContainerID != st.ContainerID && r.State.Terminated != nil {
		st.LastTerminationState = r.State
	} else if r != nil {
		st.LastTerminationState = r.LastTerminationState
	}
	switch c.State {
	case Running:
		if v.in.Hooked[c.ID] {
			st.State.Waiting = &corev1.ContainerStateWaiting{Reason: idle}
			break
		}
		started, ready := v.isStarted(s, c), v.isReady(s, c)
		st.State.Running = &corev1.ContainerStateRunning{StartedAt: stamp(c.StartedAt)}
		st.Started, st.Ready = &started, ready
		if isInit && !v.sidecars[s.Name] {
			st.Ready = false
		}
	case Created:
		st.State.Waiting = v.waitingState(s.Name, idle)
	case Unknown:
		st.State.Terminated = &corev1.ContainerStateTerminated{
			ExitCode: 137, Reason: "ContainerStatusUnknown", ContainerID: st.ContainerID,
			Message: "The container could not be located when the pod was terminated",
		}
	default:
		st.State.Terminated = v.terminated(c)
		st.Ready = isInit && !v.sidecars[s.Name] && c.ExitCode == 0
		v.coming(&st, s, c, isInit)
	}
	return st
}

// coming turns an exited container that waits for its restart into a waiting
// one that remembers how it ended.
func (v *view) coming(st *corev1.ContainerStatus, s *corev1.Container, c *Container, isInit bool) {
	if slices.Contains(v.ephemeral, s) {
		return
	}
	again := restarts(v.pod, s, c)
	if isInit {
		again = v.sidecars[s.Name] || initRestarts(v.pod, s, c)
	}
	if !again || v.terminating || v.ended() {
		return
	}
	w := v.m.waiting[s.Name]
	until := v.m.crash[s.Name].crashUntil(c.FinishedAt, v.now)
	switch {
	case w != nil && w.reason != "":
		st.State = corev1.ContainerState{Waiting: v.waitingState(s.Name, "")}
	case v.m.counted[s.Name] == c.ID: // it is being restarted
		return
	case v.now.Before(until) && v.live:
		st.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
			Reason: ReasonCrashLoopBackOff,
			Message: "back-off " + v.m.crash[s.Name].delay.String() + " restarting failed container=" + s.Name +
				" pod=" + v.pod.Name + "_" + v.pod.Namespace + "(" + string(v.pod.UID) + ")",
		}}
	default:
		return
	}
	st.LastTerminationState.Terminated = v.terminated(c)
}

// ended reports whether the pod runs nothing any more, without remembering.
func (v *view) ended() bool {
	p := v.pod.Status.Phase
	return p == corev1.PodSucceeded || p == corev1.PodFailed || v.m.failed != nil
}

// unseen is the status of a container that the runtime does not hold.
func (v *view) unseen(st *corev1.ContainerStatus, s *corev1.Container, idle string) {
	r := v.reported(s.Name)
	if r != nil && r.ContainerID != "" && (v.terminating || v.ended()) {
		*st = *r.DeepCopy()
		st.Ready = false
		no := false
		st.Started = &no
		if st.State.Terminated == nil {
			st.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: 137, Reason: "ContainerStatusUnknown", ContainerID: r.ContainerID,
				Message: "The container could not be located when the pod was terminated",
			}}
		}
		return
	}
	if r != nil && r.ContainerID != "" {
		st.RestartCount = r.RestartCount
		st.LastTerminationState = r.LastTerminationState
		if r.State.Terminated != nil {
			st.LastTerminationState = r.State
		}
	}
	st.State.Waiting = v.waitingState(s.Name, idle)
}

// waitingState is why a container has not started.
func (v *view) waitingState(name, idle string) *corev1.ContainerStateWaiting {
	w := v.m.waiting[name]
	if w == nil || w.reason == "" {
		return &corev1.ContainerStateWaiting{Reason: idle}
	}
	if w.reason == ReasonErrImagePull && v.now.Before(w.until) && w.failures > 0 && w.shown {
		return &corev1.ContainerStateWaiting{Reason: ReasonImagePullBackOff, Message: "Back-off pulling image: " + w.message}
	}
	w.shown = true
	return &corev1.ContainerStateWaiting{Reason: w.reason, Message: w.message}
}

func (v *view) terminated(c *Container) *corev1.ContainerStateTerminated {
	reason := c.Reason
	if reason == "" {
		reason = "Error"
		if c.ExitCode == 0 {
			reason = "Completed"
		}
	}
	return &corev1.ContainerStateTerminated{
		ExitCode: c.ExitCode, Reason: reason, Message: c.Message, ContainerID: v.containerID(c),
		StartedAt: stamp(c.StartedAt), FinishedAt: stamp(c.FinishedAt),
	}
}

// hold delays the status while a container that was ended for its new
// definition is not running again: readers would see it unready for the few
// milliseconds that its successor needs. What takes longer than a moment is
// told, and so is everything once the pod goes away.
func (v *view) hold() {
	if v.terminating || v.ended() {
		return
	}
	for i := range v.pod.Spec.Containers {
		s := &v.pod.Spec.Containers[i]
		old := v.latest[s.Name]
		if old != nil && old.State == Created {
			old = v.previous[s.Name]
		}
		if old == nil || old.State != Exited || old.Hash == "" || old.Hash == Hash(s) || v.m.waiting[s.Name] != nil {
			continue
		}
		if until := old.FinishedAt.Add(replaceHold); v.now.Before(until) {
			if until.After(v.plan.Hold) {
				v.plan.Hold = until
			}
			v.wake(until)
		}
	}
}
