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
	// Preemption is appended to the message when making room was tried.
	Preemption string
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
	asked := prepare(s, p)
	feasible := make([]*Node, 0, len(s.nodes))
	for _, n := range s.nodes {
		if r, ok := asked.judge(n, p); !ok {
			d.Refusals = append(d.Refusals, r)
			continue
		}
		feasible = append(feasible, n)
	}
	d.Feasible = len(feasible)
	if len(feasible) > 0 {
		d.Node = choose(s, p, feasible, seed).Name
	}
	return d
}

// choose takes the node that is kept for p, if it fits by now, else the best.
func choose(s *Snapshot, p *Prepared, feasible []*Node, seed uint64) *Node {
	for _, n := range feasible {
		if n.keptFor(p) {
			return n
		}
	}
	return best(s, p, feasible, seed)
}

// active are the rules that have something to say about a pod.
type active []struct {
	name   string
	refuse filter
}

func prepare(s *Snapshot, p *Prepared) active {
	all := rules()
	asked := make(active, 0, len(all))
	for _, r := range all {
		if f := r.prepare(s, p); f != nil {
			asked = append(asked, struct {
				name   string
				refuse filter
			}{r.name, f})
		}
	}
	return asked
}

// judge asks about the node as it is and as it will be with the pods that it
// is kept for.
func (all active) judge(n *Node, p *Prepared) (Refusal, bool) {
	r, ok := all.ask(n)
	if !ok || len(n.nominated) == 0 {
		return r, ok
	}
	if with := n.withNominated(p); with != nil {
		return all.ask(with)
	}
	return r, true
}

func (all active) ask(n *Node) (Refusal, bool) {
	for i := range all {
		if why := all[i].refuse(n); why != nil {
			return Refusal{Node: n.Name, Rule: all[i].name, Reasons: why}, false
		}
	}
	return Refusal{}, true
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
