package daemonset

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// scaled is a setting of the rolling update as a number of nodes.
func (d *decider) scaled(pick func(*appsv1.RollingUpdateDaemonSet) *intstr.IntOrString) int {
	u := d.ds.Spec.UpdateStrategy.RollingUpdate
	if u == nil || pick(u) == nil {
		return 0
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(pick(u), int(d.plan.Status.DesiredNumberScheduled), true)
	if err != nil { // validation refuses it
		return 0
	}
	return n
}

// surge is how many nodes may have two pods while the set rolls.
func (d *decider) surge() int {
	if d.ds.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType {
		return 0
	}
	u := d.ds.Spec.UpdateStrategy.RollingUpdate
	if u == nil || u.MaxSurge == nil {
		return 0
	}
	// Without nodes a percentage is nothing yet, but the set surges all the same.
	if d.plan.Status.DesiredNumberScheduled == 0 && u.MaxSurge.Type == intstr.String && u.MaxSurge.StrVal != "0%" {
		return 1
	}
	return d.scaled(func(u *appsv1.RollingUpdateDaemonSet) *intstr.IntOrString { return u.MaxSurge })
}

// roll replaces pods of older templates as far as the strategy allows.
func (d *decider) roll() {
	if d.ds.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType {
		return
	}
	if surge := d.surge(); surge > 0 {
		d.rollBySurge(surge)
		return
	}
	allowed := max(1, d.scaled(func(u *appsv1.RollingUpdateDaemonSet) *intstr.IntOrString { return u.MaxUnavailable }))
	var candidates []*corev1.Pod
	for _, s := range d.seats {
		switch {
		case s.old == nil && s.fresh == nil:
			if len(s.here) > 0 || s.start {
				allowed--
			}
		case s.old != nil && s.fresh != nil:
			allowed--
		case s.fresh != nil:
			if !d.available(s.fresh) {
				allowed--
			}
		case !d.available(s.old): // it serves nobody: replacing it costs nothing
			d.drop(s.old)
			allowed--
		default:
			candidates = append(candidates, s.old)
		}
	}
	d.drop(candidates[:min(len(candidates), max(0, allowed))]...)
}

// rollBySurge starts new pods beside old ones; [decider.manage] takes the old
// one away when the new one is available.
func (d *decider) rollBySurge(surge int) {
	var candidates []string
	var leaving []*corev1.Pod // available, on nodes that suit no more
	available := 0
	for _, s := range d.seats {
		p := s.old
		if p == nil {
			p = s.fresh
		}
		if p != nil && d.available(p) {
			available++
		}
		switch {
		case s.old == nil:
		case s.fresh != nil:
			if !d.available(s.fresh) {
				surge--
			}
		case !d.available(s.old) && !s.start:
			d.drop(s.old)
		case !d.available(s.old):
			d.start(s.name)
		case !s.start:
			leaving = append(leaving, s.old)
		default:
			candidates = append(candidates, s.name)
		}
	}
	spare := available - int(d.plan.Status.DesiredNumberScheduled)
	d.drop(leaving[:min(len(leaving), max(0, spare))]...)
	for _, n := range candidates[:min(len(candidates), max(0, surge))] {
		d.start(n)
	}
}

func (d *decider) start(node string) {
	if !slices.Contains(d.plan.Create, node) {
		d.plan.Create = append(d.plan.Create, node)
	}
}
