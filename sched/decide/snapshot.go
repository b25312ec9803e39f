package decide

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// Node is one node of a snapshot, immutable.
type Node struct {
	Name   string
	Object *corev1.Node
	Zone   string

	allocatable   Resources
	used          Resources // Pods counts the pods
	scored        Resources // used, with floors
	taints        []corev1.Taint
	unschedulable bool
	images        map[string]int64 // bytes by name
	pods          []*Prepared
	ports         []port
	groups        map[string]int // pods per group
	terms         int            // pods with inter-pod terms that bind others
	nominated     []*Prepared    // pods that wait for room here
}

// Pods returns the pods counted on the node; the slice is shared.
func (n *Node) Pods() []*Prepared { return n.pods }

// Snapshot is the cluster at one moment, immutable.
type Snapshot struct {
	nodes      []*Node // by name
	binding    []*Node // those whose pods have inter-pod terms
	namespaces map[string]labels.Set
	images     map[string]int // nodes that have the image
	zones      int
}

// Len is the number of nodes.
func (s *Snapshot) Len() int { return len(s.nodes) }

// Node returns the node of a name, or nil.
func (s *Snapshot) Node(name string) *Node {
	i, ok := slices.BinarySearchFunc(s.nodes, name, func(n *Node, name string) int { return strings.Compare(n.Name, name) })
	if !ok {
		return nil
	}
	return s.nodes[i]
}

// Cluster follows the cluster and makes snapshots; what did not change since
// the last one is shared with it. Not safe for concurrent use.
type Cluster struct {
	nodes      map[string]*Node // a Node without Object waits for its node
	where      map[types.UID]placed
	namespaces map[string]labels.Set
	snap       *Snapshot
	all        bool            // the set of nodes changed
	dirty      map[string]bool // nodes that changed
	nominated  map[types.UID]string
}

type placed struct {
	node string
	pod  *Prepared
}

// NewCluster is an empty cluster.
func NewCluster() *Cluster {
	return &Cluster{
		nodes: map[string]*Node{}, where: map[types.UID]placed{}, namespaces: map[string]labels.Set{},
		snap: &Snapshot{}, dirty: map[string]bool{}, nominated: map[types.UID]string{},
	}
}

// SetNamespace notes a namespace's labels, which selectors of inter-pod terms
// ask for; nil forgets it.
func (c *Cluster) SetNamespace(name string, l labels.Set) {
	next := maps.Clone(c.namespaces)
	if l == nil {
		delete(next, name)
	} else {
		next[name] = l
	}
	c.namespaces = next
	c.all = true
}

// SetNode adds or replaces a node; pods already counted on it stay.
func (c *Cluster) SetNode(obj *corev1.Node) {
	n := c.edit(obj.Name)
	images := make(map[string]int64, len(obj.Status.Images))
	for _, im := range obj.Status.Images {
		for _, name := range im.Names {
			images[name] = im.SizeBytes
		}
	}
	if n.Object == nil || n.Zone != obj.Labels[corev1.LabelTopologyZone] || !maps.Equal(n.images, images) {
		c.all = true
	}
	n.images = images
	n.Object, n.Zone = obj, obj.Labels[corev1.LabelTopologyZone]
	n.allocatable = fromList(obj.Status.Allocatable)
	n.taints, n.unschedulable = obj.Spec.Taints, obj.Spec.Unschedulable
}

// RemoveNode forgets a node; its pods are kept until they are removed.
func (c *Cluster) RemoveNode(name string) {
	n, ok := c.nodes[name]
	if !ok {
		return
	}
	if len(n.pods) == 0 && len(n.nominated) == 0 {
		delete(c.nodes, name)
	} else {
		c.edit(name).Object = nil
	}
	c.all = true
}

// SetPod counts p on a node, wherever it was counted before.
func (c *Cluster) SetPod(node string, p *Prepared) {
	c.RemovePod(p.Object.UID)
	n := c.edit(node)
	n.pods = append(slices.Clone(n.pods), p)
	n.count(p, 1)
	n.ports = append(slices.Clone(n.ports), p.ports...)
	c.where[p.Object.UID] = placed{node: node, pod: p}
}

// RemovePod stops counting a pod.
func (c *Cluster) RemovePod(uid types.UID) {
	at, ok := c.where[uid]
	if !ok {
		return
	}
	delete(c.where, uid)
	n := c.edit(at.node)
	n.pods = slices.DeleteFunc(slices.Clone(n.pods), func(p *Prepared) bool { return p == at.pod })
	n.count(at.pod, -1)
	n.ports = nil
	for _, p := range n.pods {
		n.ports = append(n.ports, p.ports...)
	}
	if n.Object == nil && len(n.pods) == 0 && len(n.nominated) == 0 {
		delete(c.nodes, at.node)
	}
}

// On returns the node a pod is counted on, "" if none.
func (c *Cluster) On(uid types.UID) string { return c.where[uid].node }

// edit returns a private copy of the node, which the next snapshot shows.
func (c *Cluster) edit(name string) *Node {
	n, ok := c.nodes[name]
	switch {
	case !ok:
		n = &Node{Name: name, groups: map[string]int{}}
		c.nodes[name] = n
		c.all = true
	case !c.dirty[name]:
		clone := *n
		clone.groups = maps.Clone(n.groups)
		n = &clone
		c.nodes[name] = n
	}
	c.dirty[name] = true
	return n
}

func (n *Node) count(p *Prepared, sign int) {
	n.used = n.used.plus(p.Requests, int64(sign))
	n.used.Pods += int64(sign)
	n.scored = n.scored.plus(p.score, int64(sign))
	if p.Group != "" {
		if n.groups[p.Group] += sign; n.groups[p.Group] == 0 {
			delete(n.groups, p.Group)
		}
	}
	if p.binds() {
		n.terms += sign
	}
}

// Snapshot is the cluster as it is now.
func (c *Cluster) Snapshot() *Snapshot {
	if !c.all && len(c.dirty) == 0 {
		return c.snap
	}
	s := &Snapshot{namespaces: c.namespaces, images: c.snap.images, zones: c.snap.zones}
	if c.all {
		s.nodes = make([]*Node, 0, len(c.nodes))
		for _, name := range slices.Sorted(maps.Keys(c.nodes)) {
			if n := c.nodes[name]; n.Object != nil {
				s.nodes = append(s.nodes, n)
			}
		}
		s.survey()
	} else {
		s.nodes = slices.Clone(c.snap.nodes)
		for i, n := range s.nodes {
			if c.dirty[n.Name] {
				s.nodes[i] = c.nodes[n.Name]
			}
		}
	}
	for _, n := range s.nodes {
		if n.terms > 0 {
			s.binding = append(s.binding, n)
		}
	}
	c.snap, c.all = s, false
	clear(c.dirty)
	return s
}

// survey counts what depends on the set of nodes and not on pods.
func (s *Snapshot) survey() {
	s.images = map[string]int{}
	zones := map[string]bool{}
	for _, n := range s.nodes {
		for name := range n.images {
			s.images[name]++
		}
		zones[n.Zone] = true
	}
	s.zones = len(zones)
}
