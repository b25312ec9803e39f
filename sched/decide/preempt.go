package decide

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Budget is what a PodDisruptionBudget leaves.
type Budget struct {
	Namespace string
	Selector  labels.Selector
	Allowed   int32
	// Granted are the names of pods whose disruption is counted already.
	Granted map[string]bool
}

// Preemption is how room could be made for a pod that fits nowhere.
type Preemption struct {
	Node    string // "": no node helps
	Victims []*Prepared
	// Violations is how many budgets the victims break.
	Violations int
	// Eligible says that p may preempt, though nothing helped.
	Eligible bool
	// Message says why no node helps, in upstream's words.
	Message string
}

// maxCandidates bounds the nodes that are tried, or the share of them that
// tenth is.
const (
	maxCandidates = 100
	tenth         = 10
)

// The reasons for which a node does not help.
const (
	reasonNotHelpful = "Preemption is not helpful for scheduling"
	reasonNoVictims  = "No preemption victims found for incoming pod"
)

// Preempt looks for the node where deleting pods of lower priority costs
// least, after d found that p fits on none as things are: few broken budgets,
// low priorities, few victims, young ones. Victims that can stay, stay.
func Preempt(s *Snapshot, p *Prepared, d Decision, budgets []Budget) Preemption {
	if why := ineligible(s, p); why != "" {
		return Preemption{Message: why}
	}
	count := map[string]int{}
	var best *candidate
	tried, limit := 0, max(maxCandidates, len(s.nodes)/tenth)
	for _, r := range d.Refusals {
		n := s.Node(r.Node)
		if n == nil || !mayHelp(r) {
			count[reasonNotHelpful]++
			continue
		}
		if tried >= limit && best != nil {
			break
		}
		tried++
		c, why := s.try(n, p, budgets)
		if c == nil {
			for _, w := range why {
				count[w]++
			}
			continue
		}
		if best == nil || c.compare(best) < 0 {
			best = c
		}
	}
	if best != nil {
		return Preemption{Node: best.node, Victims: best.victims, Violations: best.violations}
	}
	return Preemption{Eligible: true, Message: "preemption: " + summary(d.Nodes, count)}
}

// ineligible says why p must not preempt; "": it may.
func ineligible(s *Snapshot, p *Prepared) string {
	if pp := p.Object.Spec.PreemptionPolicy; pp != nil && *pp == corev1.PreemptNever {
		return "preemption: not eligible due to preemptionPolicy=Never."
	}
	for _, n := range s.nodes {
		if !n.keptFor(p) {
			continue
		}
		for _, other := range n.pods {
			if other.Priority < p.Priority && other.Object.DeletionTimestamp != nil && preempted(other.Object) {
				return "preemption: not eligible due to a terminating pod on the nominated node."
			}
		}
	}
	return ""
}

func preempted(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonPreemptionByScheduler
	})
}

// mayHelp reports whether other pods are why the node refused.
func mayHelp(r Refusal) bool {
	switch r.Rule {
	case RuleResources, RulePorts:
		return true
	case RuleSpread:
		return !slices.Contains(r.Reasons, ReasonSpreadLabel)
	case RuleInterPod:
		return !slices.Contains(r.Reasons, ReasonPodAffinity)
	default:
		return false
	}
}

type candidate struct {
	node       string
	victims    []*Prepared // most important first
	violations int
}

// try finds whom p would have to drive off n; why is n's answer if that does
// not help.
func (s *Snapshot) try(n *Node, p *Prepared, budgets []Budget) (*candidate, []string) {
	var lower []*Prepared
	for _, other := range n.pods {
		if other.Priority < p.Priority {
			lower = append(lower, other)
		}
	}
	if len(lower) == 0 {
		return nil, one(reasonNoVictims)
	}
	slices.SortFunc(lower, importance)
	rest := n.private()
	for _, v := range lower {
		rest.take(v)
	}
	if why := s.refuses(rest, p); why != nil {
		return nil, why
	}
	breaking, free := split(lower, budgets)
	c := &candidate{node: n.Name}
	for i, group := range [][]*Prepared{breaking, free} {
		for _, v := range group {
			back := rest.private()
			back.put(v)
			if s.refuses(back, p) == nil {
				rest = back
				continue
			}
			c.victims = append(c.victims, v)
			if i == 0 {
				c.violations++
			}
		}
	}
	if len(c.victims) == 0 { // the cluster has changed since the refusal
		return nil, one(reasonNoVictims)
	}
	slices.SortFunc(c.victims, importance)
	return c, nil
}

// refuses asks all rules about a node that stands in for that of its name.
func (s *Snapshot) refuses(n *Node, p *Prepared) []string {
	t := *s
	t.nodes, t.binding = slices.Clone(s.nodes), nil
	for i, have := range t.nodes {
		if have.Name == n.Name {
			t.nodes[i] = n
		}
		if t.nodes[i].terms > 0 {
			t.binding = append(t.binding, t.nodes[i])
		}
	}
	for _, r := range rules() {
		f := r.prepare(&t, p)
		if f == nil {
			continue
		}
		if why := f(n); why != nil {
			return why
		}
		if with := n.withNominated(p); with != nil {
			if why := f(with); why != nil {
				return why
			}
		}
	}
	return nil
}

// importance orders pods, those whose loss costs most first.
func importance(a, b *Prepared) int {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), began(a).Compare(began(b)), strings.Compare(string(a.Object.UID), string(b.Object.UID)))
}

func began(p *Prepared) time.Time {
	if p.Object.Status.StartTime != nil {
		return p.Object.Status.StartTime.Time
	}
	return p.Object.CreationTimestamp.Time
}

// split separates the pods whose deletion would break a budget.
func split(all []*Prepared, budgets []Budget) (breaking, free []*Prepared) {
	left := make([]int32, len(budgets))
	for i := range budgets {
		left[i] = budgets[i].Allowed
	}
	for _, p := range all {
		breaks := false
		for i := range budgets {
			b := &budgets[i]
			if len(p.Object.Labels) == 0 || b.Namespace != p.Object.Namespace || b.Selector.Empty() || b.Granted[p.Object.Name] ||
				!b.Selector.Matches(labels.Set(p.Object.Labels)) {
				continue
			}
			left[i]--
			breaks = breaks || left[i] < 0
		}
		if breaks {
			breaking = append(breaking, p)
		} else {
			free = append(free, p)
		}
	}
	return breaking, free
}

// compare is below zero if c costs less than o.
func (c *candidate) compare(o *candidate) int {
	return cmp.Or(
		cmp.Compare(c.violations, o.violations),
		cmp.Compare(c.victims[0].Priority, o.victims[0].Priority),
		cmp.Compare(c.sum(), o.sum()),
		cmp.Compare(len(c.victims), len(o.victims)),
		o.oldest().Compare(c.oldest()), // the younger victim
	)
}

// sum adds priorities so that more victims never count less.
func (c *candidate) sum() int64 {
	n := int64(0)
	for _, v := range c.victims {
		n += int64(v.Priority) + math.MaxInt32 + 1
	}
	return n
}

// oldest is the first start among the most important victims.
func (c *candidate) oldest() time.Time {
	t := began(c.victims[0])
	for _, v := range c.victims {
		if v.Priority == c.victims[0].Priority && began(v).Before(t) {
			t = began(v)
		}
	}
	return t
}

// summary is the sentence about nodes that do not help.
func summary(nodes int, count map[string]int) string {
	parts := make([]string, 0, len(count))
	for why, n := range count {
		parts = append(parts, fmt.Sprintf("%d %s", n, why))
	}
	slices.Sort(parts)
	if len(parts) == 0 {
		return fmt.Sprintf("0/%d nodes are available.", nodes)
	}
	return fmt.Sprintf("0/%d nodes are available: %s.", nodes, strings.Join(parts, ", "))
}
