package autoscale

import (
	"errors"
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"skein.dev/skein/controllers/pods"
)

// Figure is what one pod uses, by container.
type Figure map[string]corev1.ResourceList

// tolerance is how far from the target nothing is done.
const tolerance = 0.1

// Pauses in which a young pod's CPU figures say nothing.
const (
	readinessDelay = 30 * time.Second
	cpuWarmUp      = 5 * time.Minute
)

var (
	errNoFigures = errors.New("no metrics returned from resource metrics API")
	errNoRequest = errors.New("missing request")
	errUnknown   = errors.New("metric type is not served here")
)

// Proposal is what one metric asks for.
type Proposal struct {
	Replicas int32
	Status   autoscalingv2.MetricStatus
}

// target is a resource metric's goal in one form.
type target struct {
	name      corev1.ResourceName
	container string // "": all
	goal      autoscalingv2.MetricTarget
}

func (t *target) of(list corev1.ResourceList) int64 {
	q, ok := list[t.name]
	switch {
	case !ok:
		return -1
	case t.name == corev1.ResourceCPU:
		return q.MilliValue()
	default:
		return q.Value()
	}
}

// used is a pod's figure, -1 if it is not known.
func (t *target) used(f Figure) int64 {
	sum := int64(0)
	for name, list := range f {
		if t.container != "" && name != t.container {
			continue
		}
		n := t.of(list)
		if n < 0 {
			return -1
		}
		sum += n
	}
	if len(f) == 0 {
		return -1
	}
	return sum
}

// asked is what a pod requests.
func (t *target) asked(p *corev1.Pod) (int64, error) {
	sum := int64(0)
	for _, c := range p.Spec.Containers {
		if t.container != "" && c.Name != t.container {
			continue
		}
		n := t.of(c.Resources.Requests)
		if n < 0 {
			return 0, errNoRequest
		}
		sum += n
	}
	return sum, nil
}

// unready reports whether the pod's figures are not to be believed yet.
func (t *target) unready(p *corev1.Pod, now time.Time) bool {
	c := pods.Condition(p, corev1.PodReady)
	if p.Status.Phase == corev1.PodPending {
		return true
	}
	if t.name != corev1.ResourceCPU {
		return false
	}
	if c == nil || p.Status.StartTime == nil {
		return true
	}
	if p.Status.StartTime.Add(cpuWarmUp).After(now) {
		return c.Status == corev1.ConditionFalse || c.LastTransitionTime.After(now.Add(-readinessDelay))
	}
	return c.Status == corev1.ConditionFalse && p.Status.StartTime.Add(readinessDelay).After(c.LastTransitionTime.Time)
}

// propose is how many pods the goal asks for. Pods without figures count
// against the direction of the change: as if they used all when scaling down,
// nothing when scaling up (KEP-117).
func (t *target) propose(current int32, all []*corev1.Pod, figures map[string]Figure, now time.Time) (Proposal, error) {
	var used, base int64 // base is what the ratio divides by
	known, missing, idle := 0, []int64{}, []int64{}
	share := func(p *corev1.Pod) (int64, error) {
		if t.goal.AverageUtilization != nil {
			return t.asked(p)
		}
		if t.name == corev1.ResourceCPU {
			return t.goal.AverageValue.MilliValue(), nil
		}
		return t.goal.AverageValue.Value(), nil
	}
	for _, p := range all {
		if p.DeletionTimestamp != nil || pods.Finished(p) {
			continue
		}
		n, err := share(p)
		if err != nil {
			return Proposal{}, err
		}
		u := t.used(figures[p.Name])
		switch {
		case t.unready(p, now):
			idle = append(idle, n)
		case u < 0:
			missing = append(missing, n)
		default:
			known, used, base = known+1, used+u, base+n
		}
	}
	if known == 0 || base == 0 {
		return Proposal{}, errNoFigures
	}
	goal := 1.0
	if t.goal.AverageUtilization != nil {
		goal = float64(*t.goal.AverageUtilization) / 100
	}
	ratio := float64(used) / float64(base) / goal
	out := Proposal{Replicas: current, Status: t.status(used, base, known)}
	count := known
	if ratio > 1 {
		count += add(&base, idle) // young pods will take their share
	}
	switch {
	case len(missing) == 0:
	case ratio < 1:
		for _, n := range missing {
			used += int64(math.Ceil(float64(n) * max(1, goal)))
		}
		count += add(&base, missing)
	case ratio > 1:
		count += add(&base, missing)
	}
	after := float64(used) / float64(base) / goal
	if math.Abs(ratio-1) <= tolerance || math.Abs(after-1) <= tolerance || (ratio < 1) != (after < 1) {
		return out, nil
	}
	want := int32(math.Ceil(after * float64(count)))
	if (ratio < 1 && want > current) || (ratio > 1 && want < current) {
		return out, nil
	}
	out.Replicas = want
	return out, nil
}

func add(base *int64, more []int64) int {
	for _, n := range more {
		*base += n
	}
	return len(more)
}

func (t *target) status(used, base int64, known int) autoscalingv2.MetricStatus {
	avg := resource.NewQuantity(used/int64(known), resource.BinarySI)
	if t.name == corev1.ResourceCPU {
		avg = resource.NewMilliQuantity(used/int64(known), resource.DecimalSI)
	}
	v := autoscalingv2.MetricValueStatus{AverageValue: avg}
	if t.goal.AverageUtilization != nil {
		v.AverageUtilization = new(int32(used * 100 / base))
	}
	if t.container != "" {
		return autoscalingv2.MetricStatus{Type: autoscalingv2.ContainerResourceMetricSourceType, ContainerResource: &autoscalingv2.ContainerResourceMetricStatus{
			Name: t.name, Container: t.container, Current: v,
		}}
	}
	return autoscalingv2.MetricStatus{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricStatus{Name: t.name, Current: v}}
}

// Propose asks one metric of the autoscaler.
func Propose(m *autoscalingv2.MetricSpec, current int32, all []*corev1.Pod, figures map[string]Figure, now time.Time) (Proposal, error) {
	var t target
	switch {
	case m.Resource != nil:
		t = target{name: m.Resource.Name, goal: m.Resource.Target}
	case m.ContainerResource != nil:
		t = target{name: m.ContainerResource.Name, container: m.ContainerResource.Container, goal: m.ContainerResource.Target}
	default: // Pods, Object and External need APIs that a mesh serves later
		return Proposal{}, errUnknown
	}
	if t.goal.AverageUtilization == nil && t.goal.AverageValue == nil {
		return Proposal{}, errUnknown
	}
	return t.propose(current, all, figures, now)
}
