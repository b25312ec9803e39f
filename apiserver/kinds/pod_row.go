package kinds

import (
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nodeLost is the reason of pods whose node nobody can reach.
const nodeLost = "NodeLost"

func podColumns() []metav1.TableColumnDefinition {
	return columns([]metav1.TableColumnDefinition{
		str("Ready", "The aggregate readiness state of this pod for accepting traffic."),
		str("Status", "The aggregate status of the containers in this pod."),
		str("Restarts", "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted."),
		ageColumn(),
	}, wide(
		str("IP", describe(corev1.PodStatus{}, "podIP")),
		str("Node", describe(corev1.PodSpec{}, "nodeName")),
		str("Nominated Node", describe(corev1.PodStatus{}, "nominatedNodeName")),
		str("Readiness Gates", describe(corev1.PodSpec{}, "readinessGates")),
	)...)
}

func podRow(p *corev1.Pod) []any {
	v := summarize(p)
	restarts := strconv.Itoa(v.restarts)
	if v.restarts != 0 && !v.last.IsZero() {
		restarts = fmt.Sprintf("%d (%s ago)", v.restarts, age(v.last))
	}
	ip := ""
	if len(p.Status.PodIPs) > 0 {
		ip = p.Status.PodIPs[0].IP
	}
	return []any{
		fmt.Sprintf("%d/%d", v.ready, v.total), v.reason, restarts, age(p.CreationTimestamp),
		or(ip, none), or(p.Spec.NodeName, none), or(p.Status.NominatedNodeName, none), gates(p),
	}
}

func gates(p *corev1.Pod) string {
	if len(p.Spec.ReadinessGates) == 0 {
		return none
	}
	met := 0
	for _, g := range p.Spec.ReadinessGates {
		if podCondition(p, g.ConditionType) {
			met++
		}
	}
	return fmt.Sprintf("%d/%d", met, len(p.Spec.ReadinessGates))
}

// podCondition tells whether the first condition of a type is true.
func podCondition(p *corev1.Pod, t corev1.PodConditionType) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == t {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// podView is what a line about a pod says.
type podView struct {
	ready, total int
	reason       string
	restarts     int
	last         metav1.Time // of the last restart
}

func (v *podView) restarted(s corev1.ContainerStatus) {
	v.restarts += int(s.RestartCount)
	if t := s.LastTerminationState.Terminated; t != nil && v.last.Before(&t.FinishedAt) {
		v.last = t.FinishedAt
	}
}

// summarize boils a pod's containers down to one word: what keeps it from
// running, or that it runs.
func summarize(p *corev1.Pod) podView {
	v := podView{total: len(p.Spec.Containers), reason: or(p.Status.Reason, string(p.Status.Phase))}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonSchedulingGated {
			v.reason = corev1.PodReasonSchedulingGated
		}
	}
	sidecars := map[string]bool{}
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			sidecars[c.Name] = true
			v.total++
		}
	}
	beside := podView{} // the sidecars' restarts, which go on counting
	initializing := v.initContainers(p, sidecars, &beside)
	if !initializing || podCondition(p, corev1.PodInitialized) {
		v.restarts, v.last = beside.restarts, beside.last
		v.appContainers(p)
	}
	terminal := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	switch {
	case p.DeletionTimestamp == nil:
	case p.Status.Reason == nodeLost:
		v.reason = "Unknown"
	case !terminal:
		v.reason = "Terminating"
	}
	return v
}

// initContainers reads init containers up to the first that is not through,
// and reports whether there is one.
func (v *podView) initContainers(p *corev1.Pod, sidecars map[string]bool, beside *podView) bool {
	for i, s := range p.Status.InitContainerStatuses {
		v.restarted(s)
		if sidecars[s.Name] {
			beside.restarted(s)
		}
		ended, waiting := s.State.Terminated, s.State.Waiting
		switch {
		case ended != nil && ended.ExitCode == 0:
			continue
		case sidecars[s.Name] && s.Started != nil && *s.Started:
			if s.Ready {
				v.ready++
			}
			continue
		case ended != nil:
			v.reason = "Init:" + endReason(ended)
		case waiting != nil && waiting.Reason != "" && waiting.Reason != "PodInitializing":
			v.reason = "Init:" + waiting.Reason
		default:
			v.reason = fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers))
		}
		return true
	}
	return false
}

func endReason(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.Signal != 0:
		return fmt.Sprintf("Signal:%d", t.Signal)
	default:
		return fmt.Sprintf("ExitCode:%d", t.ExitCode)
	}
}

// appContainers lets the first container with something to say decide, which
// is why it reads from the last.
func (v *podView) appContainers(p *corev1.Pod) {
	running, failure := false, ""
	list := p.Status.ContainerStatuses
	for _, s := range slices.Backward(list) {

		v.restarted(s)
		switch {
		case s.State.Waiting != nil && s.State.Waiting.Reason != "":
			v.reason = s.State.Waiting.Reason
		case s.State.Terminated != nil:
			v.reason = endReason(s.State.Terminated)
			if s.State.Terminated.ExitCode != 0 {
				failure = v.reason
			}
		case s.Ready && s.State.Running != nil:
			running = true
			v.ready++
		}
	}
	if v.reason != "Completed" {
		return
	}
	switch {
	case running && podCondition(p, corev1.PodReady):
		v.reason = "Running"
	case failure != "":
		v.reason = failure
	case running:
		v.reason = "NotReady"
	}
}
