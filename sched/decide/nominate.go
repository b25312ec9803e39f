package decide

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// Nominate keeps room on a node for a pod that waits for its victims to go;
// node "" forgets it. Pods of lower priority do not get that room.
func (c *Cluster) Nominate(p *Prepared, node string) {
	c.Forget(p.Object.UID)
	if node == "" {
		return
	}
	n := c.edit(node)
	n.nominated = append(slices.Clone(n.nominated), p)
	c.nominated[p.Object.UID] = node
}

// Forget ends a pod's nomination.
func (c *Cluster) Forget(uid types.UID) {
	node, ok := c.nominated[uid]
	if !ok {
		return
	}
	delete(c.nominated, uid)
	n := c.edit(node)
	n.nominated = slices.DeleteFunc(slices.Clone(n.nominated), func(p *Prepared) bool { return p.Object.UID == uid })
	if n.Object == nil && len(n.pods) == 0 && len(n.nominated) == 0 {
		delete(c.nodes, node)
	}
}

// Nominated returns the node that room is kept on for a pod, "" if none.
func (c *Cluster) Nominated(uid types.UID) string { return c.nominated[uid] }

// NominatedOn returns the pods that room is kept for on a node.
func (c *Cluster) NominatedOn(node string) []*Prepared {
	n, ok := c.nodes[node]
	if !ok {
		return nil
	}
	return n.nominated
}

// keptFor reports whether room is kept for p.
func (n *Node) keptFor(p *Prepared) bool {
	return slices.ContainsFunc(n.nominated, func(x *Prepared) bool { return x.Object.UID == p.Object.UID })
}

// withNominated is the node with those on it that it is kept for and that p
// must not push aside; nil: there are none.
func (n *Node) withNominated(p *Prepared) *Node {
	var out *Node
	for _, other := range n.nominated {
		if other.Object.UID == p.Object.UID || other.Priority < p.Priority {
			continue
		}
		if out == nil {
			out = n.private()
		}
		out.put(other)
	}
	return out
}

// private is a copy that may be changed.
func (n *Node) private() *Node {
	clone := *n
	clone.groups, clone.pods, clone.ports = maps.Clone(n.groups), slices.Clone(n.pods), slices.Clone(n.ports)
	return &clone
}

func (n *Node) put(p *Prepared) {
	n.pods = append(n.pods, p)
	n.count(p, 1)
	n.ports = append(n.ports, p.ports...)
}

func (n *Node) take(p *Prepared) {
	n.pods = slices.DeleteFunc(n.pods, func(x *Prepared) bool { return x == p })
	n.count(p, -1)
	n.ports = nil
	for _, p := range n.pods {
		n.ports = append(n.ports, p.ports...)
	}
}
