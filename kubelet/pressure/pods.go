package pressure

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// critical is the least priority of pods that a node does not evict.
const critical = 2_000_000_000

// Critical reports whether the node needs the pod more than its room.
func Critical(pod *corev1.Pod) bool {
	return pod.Spec.Priority != nil && *pod.Spec.Priority >= critical
}

// Usage is what one pod uses of what runs short.
type Usage struct {
	Pod *corev1.Pod
	// Used and Requested are of the short resource; nothing is requested of
	// inodes and process ids.
	Used, Requested int64
	// Containers are the parts of it that are known, by name.
	Containers map[string]int64
}

// Next is the pod that has to go when r is short, nil if there is none: first
// of all those that use more than they asked for, the least important of them,
// and of those the one that is furthest above what it asked for.
func Next(r corev1.ResourceName, pods []Usage) *Usage {
	exceeds := func(u *Usage) int {
		if r == "pids" || u.Used > u.Requested {
			return 0
		}
		return 1
	}
	var worst *Usage
	for i := range pods {
		u := &pods[i]
		if Critical(u.Pod) {
			continue
		}
		if worst == nil || cmp.Or(
			cmp.Compare(exceeds(u), exceeds(worst)),
			cmp.Compare(priority(u.Pod), priority(worst.Pod)),
			cmp.Compare(worst.Used-worst.Requested, u.Used-u.Requested),
		) < 0 {
			worst = u
		}
	}
	return worst
}

func priority(pod *corev1.Pod) int32 {
	if p := pod.Spec.Priority; p != nil {
		return *p
	}
	return 0
}

// Message tells a pod's owner why it had to go, in upstream's words.
func Message(s Short, u *Usage) string {
	r := s.Threshold.Signal.Resource()
	format := resource.BinarySI
	if r == "pids" || r == "inodes" {
		format = resource.DecimalSI
	}
	amount := func(n int64) string { return resource.NewQuantity(n, format).String() }
	var out strings.Builder
	fmt.Fprintf(&out, "The node was low on resource: %s. Threshold quantity: %s, available: %s. ",
		r, amount(s.Threshold.least(s.Sample)), amount(s.Sample.Available))
	for i := range u.Pod.Spec.Containers {
		c := &u.Pod.Spec.Containers[i]
		request := c.Resources.Requests[r]
		if used, ok := u.Containers[c.Name]; ok && used > request.Value() {
			fmt.Fprintf(&out, "Container %s was using %s, request is %s, has larger consumption of %s. ", c.Name, amount(used), request.String(), r)
		}
	}
	return out.String()
}

// Refuses says why a node under these conditions does not take the pod, empty
// if it does: memory pressure keeps out only pods that asked for nothing.
func Refuses(conditions []corev1.NodeConditionType, pod *corev1.Pod, bestEffort bool) string {
	if len(conditions) == 0 || Critical(pod) {
		return ""
	}
	tolerates := slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool {
		anyKey := t.Key == "" && t.Operator == corev1.TolerationOpExists
		return (anyKey || t.Key == corev1.TaintNodeMemoryPressure && t.Value == "") && (t.Effect == "" || t.Effect == corev1.TaintEffectNoSchedule)
	})
	if len(conditions) == 1 && conditions[0] == corev1.NodeMemoryPressure && (!bestEffort || tolerates) {
		return ""
	}
	return fmt.Sprintf("The node had condition: %v. ", conditions)
}
