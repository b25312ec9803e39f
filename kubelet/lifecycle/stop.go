package lifecycle

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// podGrace is the grace period of a kill that is not the pod's deletion.
func (v *view) podGrace() time.Duration {
	if g := v.pod.Spec.TerminationGracePeriodSeconds; g != nil {
		return time.Duration(*g) * time.Second
	}
	return 30 * time.Second
}

// deadline returns the end of a terminating pod's grace. It moves only
// towards now: a second delete may shorten the wait, never lengthen it.
func (v *view) deadline() time.Time {
	grace := v.podGrace()
	if g := v.pod.DeletionGracePeriodSeconds; g != nil {
		grace = time.Duration(*g) * time.Second
	}
	end := v.now.Add(grace)
	if v.m.graceBy.IsZero() || end.Before(v.m.graceBy) {
		v.m.graceBy = end
	}
	return v.m.graceBy
}

// running reports whether c may still have a process.
func running(c *Container) bool { return c.State == Running || c.State == Unknown }

// killOne asks for the end of c, once, and again only to hasten it.
func (v *view) killOne(c *Container, grace time.Duration, why string) {
	end := v.now.Add(grace)
	if k, asked := v.m.kills[c.ID]; asked && !end.Before(k.deadline) {
		return
	}
	v.m.kills[c.ID] = kill{deadline: end, asked: v.now}
	v.act(Action{Op: Kill, ID: c.ID, Name: c.Name, Grace: grace, Why: why})
}

// killAll ends everything that runs and reports whether something does:
// regular and init containers together, then the sidecars one by one from
// the last to the first, all within one grace period.
func (v *view) killAll(why string, grace time.Duration) bool {
	any := false
	for i := range v.in.Containers {
		c := &v.in.Containers[i]
		if running(c) && !v.sidecars[c.Name] {
			any = true
			v.killOne(c, grace, why)
		}
	}
	for _, s := range slices.Backward(v.inits) {
		for i := range v.in.Containers {
			c := &v.in.Containers[i]
			if !running(c) || c.Name != s.Name || !v.sidecars[c.Name] {
				continue
			}
			if any && grace > 0 {
				return true // wait for those that need it
			}
			any = true
			v.killOne(c, grace, why)
		}
	}
	return any
}

// planFinished stops what is left of a pod that has run its course and keeps
// the dead containers for their logs.
func (v *view) planFinished() {
	if v.m.graceBy.IsZero() {
		v.m.graceBy = v.now.Add(v.podGrace())
	}
	if v.killAll("Stopping container", max(0, v.m.graceBy.Sub(v.now))) || v.in.Busy {
		return
	}
	v.plan.Stopped = true
	if v.evicted() {
		if !v.bare() && !v.waitsFor("") {
			v.takeApart() // its room is what the node needs
		}
		return
	}
	for _, s := range v.in.Sandboxes {
		if s.Ready && !v.m.stopped[s.ID] {
			v.act(Action{Op: StopSandbox, ID: s.ID})
		}
	}
}

// evicted reports whether the node has ended or refused the pod for its room.
func (v *view) evicted() bool {
	f := v.m.failed
	return f != nil && f.Reason == ReasonEvicted || v.pod.Status.Phase == corev1.PodFailed && v.pod.Status.Reason == ReasonEvicted
}

// bare reports whether nothing of the pod is left on the node.
func (v *view) bare() bool {
	return len(v.in.Containers) == 0 && len(v.in.Sandboxes) == 0 && v.m.cleaned
}

// planTermination takes the pod apart: containers, then sandboxes, then what
// the node keeps for it.
func (v *view) planTermination() {
	grace := max(0, v.deadline().Sub(v.now))
	if v.killAll("Stopping container", grace) || v.in.Busy {
		return
	}
	if v.waitsFor("") {
		return
	}
	v.plan.Stopped = true
	if v.bare() {
		v.plan.Clean = true
		return
	}
	v.takeApart()
}

// takeApart removes what has stopped, and what the node keeps for it.
func (v *view) takeApart() {
	for _, s := range v.in.Sandboxes {
		if !v.m.stopped[s.ID] {
			v.act(Action{Op: StopSandbox, ID: s.ID})
		}
	}
	for _, c := range v.in.Containers {
		v.act(Action{Op: Remove, ID: c.ID})
	}
	for _, s := range v.in.Sandboxes {
		v.act(Action{Op: RemoveSandbox, ID: s.ID})
	}
	v.act(Action{Op: Cleanup})
}
