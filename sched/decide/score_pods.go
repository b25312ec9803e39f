package decide

import (
	"math"

	corev1 "k8s.io/api/core/v1"
)

// spreadGroup prefers nodes, and more so zones, with few pods of the group,
// so that losing one machine loses as few of them as can be.
func spreadGroup(s *Snapshot, p *Prepared, nodes []*Node, out []int64) bool {
	if p.Group == "" {
		return false
	}
	perZone := map[string]int{}
	most, any := 0, false
	for _, n := range s.nodes {
		c := n.groups[p.Group]
		any = any || c > 0
		perZone[n.Zone] += c
	}
	if !any {
		return false
	}
	mostZone := 0
	for _, n := range nodes {
		most, mostZone = max(most, n.groups[p.Group]), max(mostZone, perZone[n.Zone])
	}
	for i, n := range nodes {
		byNode := full * int64(most-n.groups[p.Group]) / int64(max(most, 1))
		if s.zones < 2 {
			out[i] = byNode
			continue
		}
		byZone := full * int64(mostZone-perZone[n.Zone]) / int64(max(mostZone, 1))
		out[i] = (byNode + 2*byZone) / 3
	}
	return true
}

// softSpread marks by the constraints that may be broken if need be.
func softSpread(s *Snapshot, p *Prepared, nodes []*Node, out []int64) bool {
	all := constraints(s, p, corev1.ScheduleAnyway)
	if len(all) == 0 {
		return false
	}
	for i, n := range nodes {
		sum := 0.0
		for j := range all {
			c := &all[j]
			// Many domains hold few pods each: without the weight, zones
			// would always outvote host names.
			sum += float64(c.count[n.Object.Labels[c.TopologyKey]])*math.Log(float64(len(c.count)+2)) + float64(c.MaxSkew-1)
		}
		out[i] = int64(sum * 100)
		if !hasKeys(n, all) {
			out[i] = math.MaxInt32
		}
	}
	normalize(out, true)
	return true
}

// likedPods prefers nodes near pods that the pod's preferred terms name, and
// near pods whose own terms name it; required terms of others count as one.
func likedPods(s *Snapshot, p *Prepared, nodes []*Node, out []int64) bool {
	if len(p.liked) == 0 && len(s.binding) == 0 {
		return false
	}
	sum := map[domain]int64{}
	add := func(n *Node, t *term, weight int64) {
		if v, ok := n.Object.Labels[t.key]; ok {
			sum[domain{t.key, v}] += weight
		}
	}
	if len(p.liked) > 0 {
		for _, n := range s.nodes {
			for _, other := range n.pods {
				for i := range p.liked {
					if p.liked[i].matches(s, other) {
						add(n, &p.liked[i].term, p.liked[i].weight)
					}
				}
			}
		}
	}
	for _, n := range s.binding {
		for _, other := range n.pods {
			for i := range other.liked {
				if other.liked[i].matches(s, p) {
					add(n, &other.liked[i].term, other.liked[i].weight)
				}
			}
			for i := range other.affinity {
				if other.affinity[i].matches(s, p) {
					add(n, &other.affinity[i], 1)
				}
			}
		}
	}
	if len(sum) == 0 {
		return false
	}
	for i, n := range nodes {
		for d, w := range sum {
			if v, ok := n.Object.Labels[d.key]; ok && v == d.value {
				out[i] += w
			}
		}
	}
	shift(out)
	normalize(out, false)
	return true
}
