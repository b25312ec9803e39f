// Package lifecycle decides what happens next to one pod: it looks at the
// pod's object, at what the runtime holds of it and at its probes, and
// answers with actions, a status and the time to look again.
//
// Its invariant: it is pure. Nothing here reads a clock, a file or a socket,
// so a pod's whole life is a transcript that can be replayed.
package lifecycle

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// ContainerState is where the runtime says a container is.
type ContainerState string

// The states of CRI, by CRI's own words.
const (
	Created ContainerState = "created"
	Running ContainerState = "running"
	Exited  ContainerState = "exited"
	Unknown ContainerState = "unknown"
)

// Container is one container as the runtime holds it.
type Container struct {
	ID        string
	Name      string
	SandboxID string
	// Attempt is the pod's restart count of that name when it was created.
	Attempt int
	State   ContainerState
	// Hash is [Hash] of the container's spec when it was created.
	Hash    string
	Image   string
	ImageID string

	CreatedAt, StartedAt, FinishedAt time.Time

	ExitCode        int32
	Reason, Message string
}

// Sandbox is one pod sandbox as the runtime holds it.
type Sandbox struct {
	ID        string
	Attempt   int
	Ready     bool
	CreatedAt time.Time
	// IPs are the pod's own; empty when the pod is on the host's network.
	IPs []string
}

// Probes is what the prober knows of one running container. Nil is not known
// yet: then what the API last said of the same container holds.
type Probes struct {
	Started *bool
	Ready   *bool
	// Unhealthy says why a startup or liveness probe gave the container up.
	Unhealthy string
	// Grace replaces the pod's grace period when Unhealthy is set.
	Grace *int64
}

// Input is the world at one moment. Sandboxes and Containers come newest
// first and belong to this pod only.
type Input struct {
	Pod        *corev1.Pod
	Sandboxes  []Sandbox
	Containers []Container
	// Probes are by container id. A container that is missing has not been
	// looked at yet.
	Probes map[string]Probes
	// Hooked are the containers, by id, whose postStart hook has not ended:
	// they run, and they have not started yet.
	Hooked map[string]bool
	// Given is what the node has given each container, by name.
	Given map[string]corev1.ResourceRequirements
	// Resized are the running containers, by id, that do not have it yet.
	Resized map[string]Resized
	// PodResized means that the pod's own limits are not what they shall be.
	PodResized bool
	// Pending is why the pod has not been given what it asks for.
	Pending *Rejection
	// Gone means that the API has no such pod any more.
	Gone bool
	// Busy means that earlier actions other than kills are still being done.
	Busy bool
	// HoldSandbox says why no new sandbox may be made now; empty means it may.
	HoldSandbox string
	// Rejected is why this node refuses the pod, with the status reason.
	Rejected *Rejection
	// Evicted is why the node has ended the pod to keep itself alive.
	Evicted *Rejection
	// Runtime is the scheme of container ids in the API, containerd for example.
	Runtime string
	// HostIPs are the node's addresses.
	HostIPs []string
}

// Rejection is the refusal of a pod by its node.
type Rejection struct{ Reason, Message string }

// ReasonEvicted is the status reason of pods that a node has ended or refused
// because it ran short of something. Nothing of them stays on the node.
const ReasonEvicted = "Evicted"

// evictionGrace is all the time that an evicted pod's containers get.
const evictionGrace = time.Second

// Op is what an action does.
type Op string

// The actions there are. Kills run beside everything else; the others of a
// plan are done one after another, and an error of one skips to the next
// start and ends the rest.
const (
	// CreateSandbox prepares volumes and cgroups and makes sandbox Attempt.
	CreateSandbox Op = "create-sandbox"
	// StopSandbox stops sandbox ID and releases its network.
	StopSandbox Op = "stop-sandbox"
	// RemoveSandbox removes the stopped sandbox ID.
	RemoveSandbox Op = "remove-sandbox"
	// Start pulls the image of container Name as its policy says, creates
	// it in sandbox ID with Attempt and starts it.
	Start Op = "start"
	// Kill runs the preStop hook and stops container ID within Grace.
	Kill Op = "kill"
	// Resize gives container ID the limits that the node has given it, the
	// pod as a whole if there is no ID.
	Resize Op = "resize"
	// Remove removes container ID, which does not run.
	Remove Op = "remove"
	// Cleanup undoes the volumes, cgroups and directories of the pod.
	Cleanup Op = "cleanup"
)

// Action is one thing to do.
type Action struct {
	Op      Op
	ID      string
	Name    string
	Attempt int
	Grace   time.Duration
	// Why is for the event that a user reads.
	Why string
}

// String is the action as transcripts show it.
func (a Action) String() string {
	s := string(a.Op)
	if a.Name != "" {
		s += " " + a.Name
	}
	if a.ID != "" {
		s += " " + a.ID
	}
	switch a.Op {
	case CreateSandbox, Start:
		s += fmt.Sprintf(" attempt=%d", a.Attempt)
	case Kill:
		s += fmt.Sprintf(" grace=%s", a.Grace)
	default:
	}
	if a.Why != "" {
		s += " (" + a.Why + ")"
	}
	return s
}

// Plan is what to do now.
type Plan struct {
	Actions []Action
	Status  corev1.PodStatus
	// Wake is when to plan again although nothing happened; zero means only
	// when something does.
	Wake time.Time
	// Hold is until when the status need not be told: a container is being
	// replaced, and told now it would only flicker. Zero means at once.
	Hold time.Time
	// Stopped means that nothing of the pod runs and nothing will.
	Stopped bool
	// Clean means that nothing of a terminating pod is left on this node:
	// its API object may go.
	Clean bool
}
