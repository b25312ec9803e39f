package decide

import "fmt"

// The words in which a refusal reaches the user: upstream's, because people
// and tools search for them.
const (
	ReasonUnschedulable  = "node(s) were unschedulable"
	ReasonName           = "node(s) didn't match the requested node name"
	ReasonTaint          = "node(s) had untolerated taint(s)"
	ReasonAffinity       = "node(s) didn't match Pod's node affinity/selector"
	ReasonPorts          = "node(s) didn't have free ports for the requested pod ports"
	ReasonPods           = "Too many pods"
	ReasonVolumeBind     = "node(s) didn't find available persistent volumes to bind"
	ReasonVolumeNode     = "node(s) didn't match PersistentVolume's node affinity"
	ReasonSpread         = "node(s) didn't match pod topology spread constraints"
	ReasonSpreadLabel    = ReasonSpread + " (missing required label)"
	ReasonPodAffinity    = "node(s) didn't match pod affinity rules"
	ReasonPodAnti        = "node(s) didn't match pod anti-affinity rules"
	ReasonPodAntiByOther = "node(s) didn't satisfy existing pods anti-affinity rules"
	reasonInsufficient   = "Insufficient "
	// MessageNoNodes is the answer of an empty cluster.
	MessageNoNodes = "no nodes available to schedule pods"
)

// Message sums the refusals up, and what making room came to.
func (d Decision) Message() string {
	if d.Preemption == "" {
		return d.why()
	}
	return d.why() + " " + d.Preemption
}

// why sums the refusals up, "0/3 nodes are available: 3 Insufficient cpu.".
func (d Decision) why() string {
	if d.Blocked == "" && d.Nodes == 0 {
		return MessageNoNodes
	}
	if d.Blocked != "" {
		return fmt.Sprintf("0/%d nodes are available: %s.", d.Nodes, d.Blocked)
	}
	count := map[string]int{}
	for _, r := range d.Refusals {
		for _, why := range r.Reasons {
			count[why]++
		}
	}
	return summary(d.Nodes, count)
}
