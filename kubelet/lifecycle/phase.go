package lifecycle

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// initialized reports whether the init phase is over in the sandbox that
// lives, or was over when the last one did.
func (v *view) initialized() bool {
	for i := range v.pod.Spec.Containers {
		if c := v.latest[v.pod.Spec.Containers[i].Name]; c != nil && (!v.live || v.here(c)) {
			return true
		}
	}
	for _, s := range v.inits {
		c := v.latest[s.Name]
		switch {
		case c == nil || v.live && !v.here(c):
			return false
		case v.sidecars[s.Name]:
			if !v.isStarted(s, c) {
				return false
			}
		case c.State != Exited || c.ExitCode != 0:
			return false
		}
	}
	return true
}

// phase is the pod's phase by the rules of the pod lifecycle documentation.
// A phase that ended never goes back.
func (v *view) phase(st *corev1.PodStatus, initsDone bool) corev1.PodPhase {
	if p := v.pod.Status.Phase; p == corev1.PodSucceeded || p == corev1.PodFailed {
		return p
	}
	if v.initFailed() {
		return corev1.PodFailed
	}
	var alive, succeeded, stopped, waiting int
	for i := range st.ContainerStatuses {
		s := &st.ContainerStatuses[i]
		switch {
		case s.State.Running != nil:
			alive++
		case s.State.Terminated != nil:
			stopped++
			if s.State.Terminated.ExitCode == 0 {
				succeeded++
			}
		case s.LastTerminationState.Terminated != nil:
			stopped++
		default:
			waiting++
		}
	}
	switch {
	case v.terminating && v.plan.Stopped && stopped+waiting == len(st.ContainerStatuses):
		if succeeded == len(st.ContainerStatuses) {
			return corev1.PodSucceeded
		}
		return corev1.PodFailed
	case !initsDone || waiting > 0:
		return corev1.PodPending
	case alive > 0:
		return corev1.PodRunning
	case v.regularsDone():
		if v.sidecarsRun() {
			return corev1.PodRunning // until they have stopped too
		}
		if succeeded == stopped {
			return corev1.PodSucceeded
		}
		return corev1.PodFailed
	case stopped > 0:
		return corev1.PodRunning
	default:
		return corev1.PodPending
	}
}

func (v *view) sidecarsRun() bool {
	for name := range v.sidecars {
		if c := v.latest[name]; c != nil && v.sidecars[name] && running(c) {
			return true
		}
	}
	return false
}

// conditions sets the five conditions that a kubelet owns.
func (v *view) conditions(st *corev1.PodStatus, initsDone bool) {
	over := st.Phase == corev1.PodSucceeded || st.Phase == corev1.PodFailed
	v.resizeConditions(st)
	if e := v.in.Evicted; e != nil && over {
		v.set(st, corev1.DisruptionTarget, true, corev1.PodReasonTerminationByKubelet, e.Message)
	}
	v.set(st, corev1.PodReadyToStartContainers, v.live, "", "")
	switch {
	case over && st.Phase == corev1.PodSucceeded:
		v.set(st, corev1.PodInitialized, true, "PodCompleted", "")
	case initsDone:
		v.set(st, corev1.PodInitialized, true, "", "")
	default:
		v.set(st, corev1.PodInitialized, false, "ContainersNotInitialized", named("containers with incomplete status: [%s]", v.incomplete()))
	}
	reason, message := "", ""
	ready := false
	unready := v.unready(st)
	switch {
	case st.Phase == corev1.PodSucceeded:
		reason = "PodCompleted"
	case st.Phase == corev1.PodFailed:
		reason = "PodFailed"
	case len(unready) > 0 || !initsDone:
		reason, message = "ContainersNotReady", named("containers with unready status: [%s]", unready)
	default:
		ready = true
	}
	v.set(st, corev1.ContainersReady, ready, reason, message)
	if ready {
		if missing := v.gates(st); len(missing) > 0 {
			ready, reason, message = false, "ReadinessGatesNotReady", strings.Join(missing, ", ")
		}
	}
	v.set(st, corev1.PodReady, ready, reason, message)
	if !slices.ContainsFunc(st.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodScheduled }) {
		v.set(st, corev1.PodScheduled, true, "", "")
	}
}

func named(format string, names []string) string {
	return fmt.Sprintf(format, strings.Join(names, " "))
}

func (v *view) incomplete() []string {
	var names []string
	for _, s := range v.inits {
		c := v.latest[s.Name]
		done := c != nil && c.State == Exited && c.ExitCode == 0
		if v.sidecars[s.Name] {
			done = c != nil && v.isStarted(s, c)
		}
		if !done {
			names = append(names, s.Name)
		}
	}
	return names
}

func (v *view) unready(st *corev1.PodStatus) []string {
	var names []string
	for i := range st.InitContainerStatuses {
		if s := &st.InitContainerStatuses[i]; v.sidecars[s.Name] && !s.Ready {
			names = append(names, s.Name)
		}
	}
	for i := range st.ContainerStatuses {
		if !st.ContainerStatuses[i].Ready {
			names = append(names, st.ContainerStatuses[i].Name)
		}
	}
	return names
}

// gates lists the readiness gates that are not satisfied.
func (v *view) gates(st *corev1.PodStatus) []string {
	var missing []string
	for _, g := range v.pod.Spec.ReadinessGates {
		i := slices.IndexFunc(st.Conditions, func(c corev1.PodCondition) bool { return c.Type == g.ConditionType })
		switch {
		case i < 0:
			missing = append(missing, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", g.ConditionType))
		case st.Conditions[i].Status != corev1.ConditionTrue:
			missing = append(missing, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %s", g.ConditionType, st.Conditions[i].Status))
		}
	}
	return missing
}

// set writes one condition; its transition time moves only with its status.
func (v *view) set(st *corev1.PodStatus, t corev1.PodConditionType, ok bool, reason, message string) {
	c := corev1.PodCondition{
		Type: t, Status: corev1.ConditionFalse, Reason: reason, Message: message,
		LastTransitionTime: stamp(v.now), ObservedGeneration: v.pod.Generation,
	}
	if ok {
		c.Status = corev1.ConditionTrue
	}
	for i := range st.Conditions {
		if st.Conditions[i].Type != t {
			continue
		}
		if st.Conditions[i].Status == c.Status {
			c.LastTransitionTime = st.Conditions[i].LastTransitionTime
		}
		c.LastProbeTime = metav1.Time{}
		st.Conditions[i] = c
		return
	}
	st.Conditions = append(st.Conditions, c)
}
