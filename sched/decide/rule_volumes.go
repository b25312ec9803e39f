package decide

import (
	"slices"

	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// Waiting is a claim that is bound only once its pod has a node.
type Waiting struct {
	// Candidates are the volumes it may be bound to, the best first.
	Candidates []Candidate
	// Provisions says that a volume can be made, where Topology allows (nil:
	// anywhere).
	Provisions bool
	Topology   *nodeaffinity.NodeSelector
}

// Candidate is a volume that waits for a claim.
type Candidate struct {
	Name string
	Node *nodeaffinity.NodeSelector // nil: reached from every node
}

// volumes refuses nodes from which a bound volume cannot be reached, or where
// a claim that waits could not be bound.
func volumes(_ *Snapshot, p *Prepared) filter {
	if len(p.Volumes) == 0 && len(p.Waiting) == 0 {
		return nil
	}
	bound, wait := one(ReasonVolumeNode), one(ReasonVolumeBind)
	return func(n *Node) []string {
		for _, v := range p.Volumes {
			if !v.Match(n.Object) {
				return bound
			}
		}
		if _, ok := Assign(n, p); !ok {
			return wait
		}
		return nil
	}
}

// Assign names a volume for each claim of p that waits, "" for one that is to
// be made; false: the node has not enough.
func Assign(n *Node, p *Prepared) ([]string, bool) {
	var taken []string
	for _, w := range p.Waiting {
		i := slices.IndexFunc(w.Candidates, func(c Candidate) bool {
			return !slices.Contains(taken, c.Name) && (c.Node == nil || c.Node.Match(n.Object))
		})
		switch {
		case i >= 0:
			taken = append(taken, w.Candidates[i].Name)
		case w.Provisions && (w.Topology == nil || w.Topology.Match(n.Object)):
			taken = append(taken, "")
		default:
			return nil, false
		}
	}
	return taken, true
}
