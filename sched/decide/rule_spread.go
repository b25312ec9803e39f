package decide

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// constraint is one topology spread constraint while a pod is decided.
type constraint struct {
	*corev1.TopologySpreadConstraint
	selector labels.Selector
	self     int            // 1 if the pod counts itself
	count    map[string]int // matching pods per domain
}

// constraints prepares those of the pod with the given answer to failure and
// counts the pods they speak of.
func constraints(s *Snapshot, p *Prepared, when corev1.UnsatisfiableConstraintAction) []constraint {
	var out []constraint
	for i := range p.Object.Spec.TopologySpreadConstraints {
		c := &p.Object.Spec.TopologySpreadConstraints[i]
		if c.WhenUnsatisfiable != when {
			continue
		}
		sel := selectorOf(c.LabelSelector)
		for _, k := range c.MatchLabelKeys {
			if v, ok := p.Object.Labels[k]; ok {
				if req, err := labels.NewRequirement(k, "in", []string{v}); err == nil {
					sel = sel.Add(*req)
				}
			}
		}
		x := constraint{TopologySpreadConstraint: c, selector: sel, count: map[string]int{}}
		if sel.Matches(labels.Set(p.Object.Labels)) {
			x.self = 1
		}
		out = append(out, x)
	}
	for i := range out {
		out[i].survey(s, p, out)
	}
	return out
}

// survey counts over the nodes that count: those with all the keys, and as
// the policies say, those that the pod could run on at all.
func (c *constraint) survey(s *Snapshot, p *Prepared, all []constraint) {
	for _, n := range s.nodes {
		if !hasKeys(n, all) || !c.eligible(n, p) {
			continue
		}
		v := n.Object.Labels[c.TopologyKey]
		c.count[v] += 0 // the domain exists even without pods
		for _, other := range n.pods {
			o := other.Object
			if o.Namespace == p.Object.Namespace && o.DeletionTimestamp == nil && c.selector.Matches(labels.Set(o.Labels)) {
				c.count[v]++
			}
		}
	}
}

func (c *constraint) eligible(n *Node, p *Prepared) bool {
	if c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor {
		if ok, err := p.required.Match(n.Object); err != nil || !ok {
			return false
		}
	}
	if c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor {
		return taints(nil, p)(n) == nil
	}
	return true
}

func hasKeys(n *Node, all []constraint) bool {
	for i := range all {
		if _, ok := n.Object.Labels[all[i].TopologyKey]; !ok {
			return false
		}
	}
	return true
}

// least is the count of the emptiest domain; with fewer domains than the
// constraint wants, the missing ones count as empty.
func (c *constraint) least() int {
	if c.MinDomains != nil && len(c.count) < int(*c.MinDomains) {
		return 0
	}
	low, first := 0, true
	for _, n := range c.count {
		if first || n < low {
			low, first = n, false
		}
	}
	return low
}

// topologySpread refuses nodes that would make the spread worse than allowed.
func topologySpread(s *Snapshot, p *Prepared) filter {
	all := constraints(s, p, corev1.DoNotSchedule)
	if len(all) == 0 {
		return nil
	}
	low := make([]int, len(all))
	for i := range all {
		low[i] = all[i].least()
	}
	missing, skewed := one(ReasonSpreadLabel), one(ReasonSpread)
	return func(n *Node) []string {
		for i := range all {
			c := &all[i]
			v, ok := n.Object.Labels[c.TopologyKey]
			if !ok {
				return missing
			}
			if c.count[v]+c.self-low[i] > int(c.MaxSkew) {
				return skewed
			}
		}
		return nil
	}
}
