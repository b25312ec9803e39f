package lifecycle

import (
	"encoding/json"
	"hash/fnv"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Hash identifies the part of a container's spec whose change restarts it.
func Hash(c *corev1.Container) string {
	b, _ := json.Marshal([]string{c.Name, c.Image}) // strings always marshal
	h := fnv.New64a()
	h.Write(b)
	return strconv.FormatUint(h.Sum64(), 16)
}

// Failure is an action that did not succeed, as the status shows it.
type Failure struct {
	Action Action
	// Reason is the waiting reason, ErrImagePull for example.
	Reason, Message string
}

// Waiting reasons of Kubernetes that the machine treats by themselves.
const (
	ReasonContainerCreating = "ContainerCreating"
	ReasonPodInitializing   = "PodInitializing"
	ReasonCrashLoopBackOff  = "CrashLoopBackOff"
	ReasonErrImagePull      = "ErrImagePull"
	ReasonImagePullBackOff  = "ImagePullBackOff"
	ReasonErrImageNeverPull = "ErrImageNeverPull"
	ReasonConfigError       = "CreateContainerConfigError"
	ReasonCreateError       = "CreateContainerError"
	ReasonRunError          = "RunContainerError"
)

type waiting struct {
	reason, message string
	until           time.Time
	failures        int
	shown           bool
	pull            backoff
}

type kill struct {
	deadline time.Time
	asked    time.Time
}

// Machine is the memory of one pod between plans. Nothing in it is needed
// for safety: a new Machine goes on from what the runtime holds.
type Machine struct {
	crash   map[string]backoff  // by container name
	counted map[string]string   // container name -> id whose exit the back-off counts
	waiting map[string]*waiting // by container name, "" is the sandbox
	kills   map[string]kill     // by container id
	stopped map[string]bool     // sandbox ids
	graceBy time.Time           // when the pod's grace ends, once terminating
	cleaned bool
	started time.Time
	failed  *Rejection // deadline exceeded or refused
}

// New returns the machine of a pod that nothing is known of.
func New() *Machine {
	return &Machine{
		crash:   map[string]backoff{},
		counted: map[string]string{},
		waiting: map[string]*waiting{},
		kills:   map[string]kill{},
		stopped: map[string]bool{},
	}
}

// Done tells the machine that an action succeeded.
func (m *Machine) Done(a Action) {
	switch a.Op {
	case CreateSandbox:
		delete(m.waiting, "")
	case Start:
		delete(m.waiting, a.Name)
	case Resize:
		delete(m.waiting, resizing)
	case StopSandbox:
		m.stopped[a.ID] = true
	case Cleanup:
		m.cleaned = true
	default:
	}
}

// Failed tells the machine that an action did not succeed.
func (m *Machine) Failed(f Failure, now time.Time) {
	key := f.Action.Name
	if f.Action.Op == Kill {
		delete(m.kills, f.Action.ID) // the next plan asks again
		key = "\x00kill"             // no container's name
	}
	if f.Action.Op == Resize {
		key = resizing
	}
	w := m.waiting[key]
	if w == nil {
		w = &waiting{}
		m.waiting[key] = w
	}
	w.reason, w.message = f.Reason, f.Message
	w.failures++
	w.shown = false
	switch f.Reason {
	case ReasonErrImagePull:
		w.pull = w.pull.next(now, backoffForget)
		w.until = now.Add(w.pull.delay)
	case ReasonErrImageNeverPull, ReasonConfigError:
		w.until = now.Add(backoffFirst)
	default:
		w.until = now.Add(retry(w.failures))
	}
}

// Retry forgets the waits of failed configuration and volumes: something
// they depend on has changed.
func (m *Machine) Retry() {
	for _, w := range m.waiting {
		if w.reason != ReasonErrImagePull {
			w.until = time.Time{}
		}
	}
}

// Plan decides. It may be called at any time and as often as one likes.
func (m *Machine) Plan(in Input, now time.Time) Plan {
	v := m.look(in, now)
	switch {
	case v.terminating:
		v.planTermination()
	case v.finished():
		v.planFinished()
	default:
		v.planRunning()
	}
	v.plan.Status = v.status()
	v.hold()
	return v.plan
}

// view is one planning round: the input, sorted.
type view struct {
	m    *Machine
	in   Input
	pod  *corev1.Pod
	now  time.Time
	plan Plan

	terminating bool
	sandbox     *Sandbox // the newest, ready or not
	live        bool     // sandbox is ready
	latest      map[string]*Container
	previous    map[string]*Container
	inits       []*corev1.Container // run to completion, in order
	sidecars    map[string]bool
	all         []*corev1.Container // init containers, then regular ones
	ephemeral   []*corev1.Container // for people who look into a running pod
}

func (m *Machine) look(in Input, now time.Time) *view {
	v := &view{
		m: m, in: in, pod: in.Pod, now: now,
		terminating: in.Gone || in.Pod.DeletionTimestamp != nil,
		latest:      map[string]*Container{},
		previous:    map[string]*Container{},
		sidecars:    map[string]bool{},
	}
	if m.started.IsZero() {
		m.started = now
		if t := in.Pod.Status.StartTime; t != nil {
			m.started = t.Time
		}
	}
	for i := range in.Pod.Spec.InitContainers {
		c := &in.Pod.Spec.InitContainers[i]
		v.all = append(v.all, c)
		v.inits = append(v.inits, c)
		v.sidecars[c.Name] = Sidecar(c)
	}
	for i := range in.Pod.Spec.Containers {
		v.all = append(v.all, &in.Pod.Spec.Containers[i])
	}
	for i := range in.Pod.Spec.EphemeralContainers {
		v.ephemeral = append(v.ephemeral, (*corev1.Container)(&in.Pod.Spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
	if len(in.Sandboxes) > 0 {
		v.sandbox = &in.Sandboxes[0]
		v.live = v.sandbox.Ready && !m.stopped[v.sandbox.ID]
	}
	for i := range in.Containers {
		c := &in.Containers[i]
		switch {
		case v.latest[c.Name] == nil:
			v.latest[c.Name] = c
		case v.previous[c.Name] == nil:
			v.previous[c.Name] = c
		}
	}
	m.rememberCrashes(v)
	return v
}

// rememberCrashes seeds the back-off of containers this machine did not see
// start.
func (m *Machine) rememberCrashes(v *view) {
	for name, c := range v.latest {
		if _, known := m.crash[name]; !known {
			m.crash[name] = adopted(c.Attempt, c.StartedAt)
		}
	}
}

// Sidecar reports whether an init container restarts for the life of the pod.
func Sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// act adds an action to the plan.
func (v *view) act(a Action) { v.plan.Actions = append(v.plan.Actions, a) }

// wake asks for another plan at t.
func (v *view) wake(t time.Time) {
	if t.IsZero() {
		return
	}
	if v.plan.Wake.IsZero() || t.Before(v.plan.Wake) {
		v.plan.Wake = t
	}
}

// waitsFor reports whether key's last failure still holds it back.
func (v *view) waitsFor(key string) bool {
	w := v.m.waiting[key]
	if w == nil || !v.now.Before(w.until) {
		return false
	}
	v.wake(w.until)
	return true
}

// here reports whether c is in the sandbox that lives.
func (v *view) here(c *Container) bool {
	return c != nil && v.sandbox != nil && c.SandboxID == v.sandbox.ID
}
