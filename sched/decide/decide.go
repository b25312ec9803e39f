// Package decide answers on which node a pod should run.
//
// Its invariant: it is pure. The same snapshot, pod and seed give the same
// answer, a snapshot never changes, and no answer overcommits a node by what
// the snapshot knows.
package decide

// Decision is the answer for one pod.
type Decision struct {
	// Node is the chosen node, "" if none fits.
	Node string
	// Feasible is how many nodes fit.
	Feasible int
	// Refusals says of each node that does not fit why, in order of node
	// names. It is complete only when no node fits.
	Refusals []Refusal
	// Blocked is set when the pod can run nowhere whatever the nodes are.
	Blocked string
	// Nodes is how many nodes were looked at.
	Nodes int
}

// Refusal is one node's answer.
type Refusal struct {
	Node    string
	Rule    string   // the first rule that refused
	Reasons []string // in upstream's words
}

// filter says why the node does not fit; nil: it does. The slice is shared.
type filter func(*Node) []string

// rule is one reason to refuse a node. prepare looks at the pod once and
// returns nil when the rule has nothing to say about it.
type rule struct {
	name    string
	prepare func(*Snapshot, *Prepared) filter
}

// rules are asked in this order; the first refusal is the node's answer.
func rules() []rule {
	return []rule{
		{RuleUnschedulable, unschedulable},
		{RuleName, nodeName},
		{RuleTaints, taints},
		{RuleAffinity, nodeAffinity},
		{RulePorts, hostPorts},
		{RuleResources, resources},
		{RuleVolumes, volumes},
		{RuleSpread, topologySpread},
		{RuleInterPod, interPod},
	}
}

// The rules' names, upstream's plugin names.
const (
	RuleUnschedulable = "NodeUnschedulable"
	RuleName          = "NodeName"
	RuleTaints        = "TaintToleration"
	RuleAffinity      = "NodeAffinity"
	RulePorts         = "NodePorts"
	RuleResources     = "NodeResourcesFit"
	RuleVolumes       = "VolumeBinding"
	RuleSpread        = "PodTopologySpread"
	RuleInterPod      = "InterPodAffinity"
)

// Pod decides where p should run. Equally good nodes are told apart by seed.
func Pod(s *Snapshot, p *Prepared, seed uint64) Decision {
	d := Decision{Nodes: len(s.nodes), Blocked: p.Blocked}
	if d.Blocked != "" || len(s.nodes) == 0 {
		return d
	}
	type active struct {
		name   string
		refuse filter
	}
	all := rules()
	asked := make([]active, 0, len(all))
	for _, r := range all {
		if f := r.prepare(s, p); f != nil {
			asked = append(asked, active{r.name, f})
		}
	}
	feasible := make([]*Node, 0, len(s.nodes))
nodes:
	for _, n := range s.nodes {
		for _, a := range asked {
			if why := a.refuse(n); why != nil {
				d.Refusals = append(d.Refusals, Refusal{Node: n.Name, Rule: a.name, Reasons: why})
				continue nodes
			}
		}
		feasible = append(feasible, n)
	}
	d.Feasible = len(feasible)
	if len(feasible) > 0 {
		d.Node = best(s, p, feasible, seed).Name
	}
	return d
}

// Rules returns the names of the rules that refused any node, each once: what
// must change before the pod fits.
func (d Decision) Rules() []string {
	var out []string
	for _, r := range d.Refusals {
		found := false
		for _, have := range out {
			found = found || have == r.Rule
		}
		if !found {
			out = append(out, r.Rule)
		}
	}
	return out
}

func one(reason string) []string { return []string{reason} }
