package lifecycle

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// restarts reports whether the pod's policy starts c again after its exit.
// Containers may have rules of their own (KEP-5307): the first that matches
// the exit code wins over the policy.
func restarts(pod *corev1.Pod, spec *corev1.Container, c *Container) bool {
	for _, r := range spec.RestartPolicyRules {
		if r.ExitCodes != nil && matches(r.ExitCodes, c.ExitCode) {
			return r.Action == corev1.ContainerRestartRuleActionRestart
		}
	}
	policy := pod.Spec.RestartPolicy
	if spec.RestartPolicy != nil {
		policy = corev1.RestartPolicy(*spec.RestartPolicy)
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return c.ExitCode != 0 || c.State == Unknown
	default:
		return true
	}
}

func matches(r *corev1.ContainerRestartRuleOnExitCodes, code int32) bool {
	if slices.Contains(r.Values, code) {
		return r.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn
	}
	return r.Operator == corev1.ContainerRestartRuleOnExitCodesOpNotIn
}

// initFailed reports whether an init container has failed for good.
func (v *view) initFailed() bool {
	for _, s := range v.inits {
		c := v.latest[s.Name]
		if c != nil && c.State == Exited && c.ExitCode != 0 && !v.sidecars[s.Name] && !initRestarts(v.pod, s, c) {
			return true
		}
	}
	return false
}

// initRestarts is restarts for an init container, where Always means until
// it succeeds.
func initRestarts(pod *corev1.Pod, spec *corev1.Container, c *Container) bool {
	return c.ExitCode != 0 && restarts(pod, spec, c)
}

// finished reports whether the pod has run its course, and remembers why.
func (v *view) finished() bool {
	switch p := v.pod.Status.Phase; {
	case p == corev1.PodSucceeded || p == corev1.PodFailed:
		return true
	case v.m.failed != nil:
		return true
	case v.in.Evicted != nil:
		v.m.failed, v.m.graceBy = v.in.Evicted, v.now.Add(evictionGrace)
		return true
	case v.in.Rejected != nil && len(v.in.Containers) == 0:
		v.m.failed = v.in.Rejected
		return true
	}
	if d := v.pod.Spec.ActiveDeadlineSeconds; d != nil {
		end := v.m.started.Add(time.Duration(*d) * time.Second)
		if !v.now.Before(end) {
			v.m.failed = &Rejection{Reason: "DeadlineExceeded", Message: "Pod was active on the node longer than the specified deadline"}
			return true
		}
		v.wake(end)
	}
	return v.initFailed() || v.regularsDone()
}

// regularsDone reports whether every regular container has ended for good.
func (v *view) regularsDone() bool {
	for i := range v.pod.Spec.Containers {
		s := &v.pod.Spec.Containers[i]
		c := v.latest[s.Name]
		if c == nil || c.State == Running || c.State == Created || restarts(v.pod, s, c) {
			return false
		}
	}
	return true
}

// planRunning brings the pod towards running.
func (v *view) planRunning() {
	if !v.live {
		v.planSandbox()
		return
	}
	v.restartUnhealthy()
	if v.in.Busy {
		return
	}
	v.collect()
	v.planResize()
	v.planEphemeral()
	if v.planInit() {
		for i := range v.pod.Spec.Containers {
			v.planContainer(&v.pod.Spec.Containers[i], false)
		}
	}
}

// planSandbox replaces a dead sandbox or makes the first one.
func (v *view) planSandbox() {
	if v.killAll("the pod sandbox has changed, the container will be killed and re-created", v.podGrace()) || v.in.Busy || v.waitsFor("") {
		return
	}
	attempt := 0
	for _, s := range v.in.Sandboxes {
		attempt = max(attempt, s.Attempt+1)
		if !v.m.stopped[s.ID] {
			v.act(Action{Op: StopSandbox, ID: s.ID})
		}
	}
	if v.in.HoldSandbox == "" {
		v.act(Action{Op: CreateSandbox, Attempt: attempt})
	}
}

// dropSandbox removes an old sandbox once none of the containers that are
// kept for their logs is in it.
func (v *view) dropSandbox(id string) {
	for _, c := range v.in.Containers {
		if c.SandboxID == id && (v.latest[c.Name].ID == c.ID || v.previous[c.Name].ID == c.ID) {
			return
		}
	}
	if !v.m.stopped[id] {
		v.act(Action{Op: StopSandbox, ID: id})
	}
	v.act(Action{Op: RemoveSandbox, ID: id})
}

// planInit steps through the init containers and reports whether the regular
// containers may start. Once one of those exists in this sandbox the init
// phase is over and only sidecars are looked after.
func (v *view) planInit() bool {
	over := false
	for i := range v.pod.Spec.Containers {
		over = over || v.here(v.latest[v.pod.Spec.Containers[i].Name])
	}
	for _, s := range v.inits {
		c := v.latest[s.Name]
		switch {
		case v.sidecars[s.Name]:
			v.planContainer(s, true)
			if !over && (!v.here(c) || c.State != Running || !v.isStarted(s, c)) {
				return false
			}
		case over:
		case v.here(c) && c.State == Exited && c.ExitCode == 0:
		case v.here(c) && c.State == Running:
			return false
		default:
			v.planContainer(s, false)
			return false
		}
	}
	return true
}

// planContainer starts s if it should run and does not.
func (v *view) planContainer(s *corev1.Container, sidecar bool) {
	c := v.latest[s.Name]
	switch {
	case c == nil:
		v.start(s, v.restartCount(s.Name))
	case c.State == Running:
	case c.State == Created:
		// Created and never started: whoever made it is gone.
		v.act(Action{Op: Remove, ID: c.ID, Name: s.Name})
		v.start(s, c.Attempt)
	case c.State == Unknown:
		v.killOne(c, 0, "container is in an unknown state, try killing it before restart")
	case !v.here(c) && v.isInit(s.Name):
		v.start(s, c.Attempt+1) // a new sandbox runs its init containers again
	case sidecar || restarts(v.pod, s, c):
		until := v.m.crash[s.Name].crashUntil(c.FinishedAt, v.now)
		if !v.here(c) {
			until = v.now
		}
		if v.now.Before(until) {
			v.wake(until)
			return
		}
		if v.start(s, c.Attempt+1) && v.m.counted[s.Name] != c.ID {
			v.m.counted[s.Name] = c.ID
			v.m.crash[s.Name] = v.m.crash[s.Name].next(v.now, backoffForget)
		}
	}
}

// planEphemeral starts each ephemeral container once, whenever it came.
func (v *view) planEphemeral() {
	for _, s := range v.ephemeral {
		if v.latest[s.Name] == nil && v.restartCount(s.Name) == 0 {
			v.start(s, 0)
		}
	}
}

func (v *view) isInit(name string) bool {
	for _, s := range v.inits {
		if s.Name == name {
			return true
		}
	}
	return false
}

// start plans the start of s unless an earlier failure holds it back.
func (v *view) start(s *corev1.Container, attempt int) bool {
	if v.waitsFor(s.Name) {
		return false
	}
	v.act(Action{Op: Start, ID: v.sandbox.ID, Name: s.Name, Attempt: attempt})
	return true
}

// restartCount continues the API's count when the runtime has lost the
// containers.
func (v *view) restartCount(name string) int {
	if s := v.reported(name); s != nil && s.ContainerID != "" {
		return int(s.RestartCount) + 1
	}
	return 0
}

// restartUnhealthy kills what its probes gave up and what has a new image.
func (v *view) restartUnhealthy() {
	for _, s := range v.all {
		c := v.latest[s.Name]
		if c == nil || c.State != Running {
			continue
		}
		if p := v.in.Probes[c.ID]; p.Unhealthy != "" {
			grace := v.podGrace()
			if p.Grace != nil {
				grace = time.Duration(*p.Grace) * time.Second
			}
			v.killOne(c, grace, fmt.Sprintf("Container %s %s, will be restarted", s.Name, p.Unhealthy))
		} else if c.Hash != "" && c.Hash != Hash(s) {
			v.killOne(c, v.podGrace(), fmt.Sprintf("Container %s definition changed, will be restarted", s.Name))
		}
	}
}

// collect removes dead containers that nobody needs: of each name the newest
// stays for its state and the one before for its logs.
func (v *view) collect() {
	for i := range v.in.Containers {
		c := &v.in.Containers[i]
		if c.State != Running && v.latest[c.Name] != c && v.previous[c.Name] != c {
			v.act(Action{Op: Remove, ID: c.ID, Name: c.Name})
		}
	}
	for i := 1; i < len(v.in.Sandboxes); i++ {
		v.dropSandbox(v.in.Sandboxes[i].ID)
	}
}
