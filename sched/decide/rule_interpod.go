package decide

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// term is one inter-pod affinity term, parsed.
type term struct {
	selector   labels.Selector
	key        string   // of the topology
	namespaces []string // any of these,
	nsSelector labels.Selector
}

// weighted is a preferred term; negative weights are anti-affinity.
type weighted struct {
	term
	weight int64
}

// domain is one place: a topology key and its value on some nodes.
type domain struct{ key, value string }

func (p *Prepared) prepareInterPod(a *corev1.Affinity) {
	if pa := a.PodAffinity; pa != nil {
		p.affinity = p.terms(pa.RequiredDuringSchedulingIgnoredDuringExecution)
		p.like(pa.PreferredDuringSchedulingIgnoredDuringExecution, 1)
	}
	if pa := a.PodAntiAffinity; pa != nil {
		p.anti = p.terms(pa.RequiredDuringSchedulingIgnoredDuringExecution)
		p.like(pa.PreferredDuringSchedulingIgnoredDuringExecution, -1)
	}
}

func (p *Prepared) terms(in []corev1.PodAffinityTerm) []term {
	out := make([]term, 0, len(in))
	for i := range in {
		out = append(out, p.term(&in[i]))
	}
	return out
}

func (p *Prepared) like(in []corev1.WeightedPodAffinityTerm, sign int64) {
	for i := range in {
		p.liked = append(p.liked, weighted{term: p.term(&in[i].PodAffinityTerm), weight: sign * int64(in[i].Weight)})
	}
}

func (p *Prepared) term(t *corev1.PodAffinityTerm) term {
	out := term{key: t.TopologyKey, namespaces: t.Namespaces, selector: selectorOf(t.LabelSelector)}
	if t.NamespaceSelector != nil {
		out.nsSelector = selectorOf(t.NamespaceSelector)
	} else if len(t.Namespaces) == 0 {
		out.namespaces = []string{p.Object.Namespace}
	}
	return out
}

// selectorOf matches nothing where the API's selector is nil or malformed.
func selectorOf(s *metav1.LabelSelector) labels.Selector {
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return sel
}

// binds reports whether p, once placed, restricts or attracts others.
func (p *Prepared) binds() bool { return len(p.anti) > 0 || len(p.liked) > 0 || len(p.affinity) > 0 }

func (t *term) matches(s *Snapshot, p *Prepared) bool {
	in := slices.Contains(t.namespaces, p.Object.Namespace) ||
		(t.nsSelector != nil && t.nsSelector.Matches(s.namespaces[p.Object.Namespace]))
	return in && t.selector.Matches(labels.Set(p.Object.Labels))
}

func matchesAll(terms []term, s *Snapshot, p *Prepared) bool {
	for i := range terms {
		if !terms[i].matches(s, p) {
			return false
		}
	}
	return true
}

// interPod refuses nodes where the pod's own terms fail, or where a pod that
// is there already does not want it near.
func interPod(s *Snapshot, p *Prepared) filter {
	closed := closedTo(s, p)
	if len(p.affinity) == 0 && len(p.anti) == 0 && len(closed) == 0 {
		return nil
	}
	near, far := map[domain]bool{}, map[domain]bool{}
	if len(p.affinity) > 0 || len(p.anti) > 0 {
		for _, n := range s.nodes {
			for _, other := range n.pods {
				if len(p.affinity) > 0 && matchesAll(p.affinity, s, other) {
					n.mark(near, p.affinity)
				}
				for i := range p.anti {
					if p.anti[i].matches(s, other) {
						n.mark(far, p.anti[i:i+1])
					}
				}
			}
		}
	}
	// The first of a group that wants to be together has nobody to join.
	first := len(near) == 0 && matchesAll(p.affinity, s, p)
	whyAffinity, whyAnti, whyOther := one(ReasonPodAffinity), one(ReasonPodAnti), one(ReasonPodAntiByOther)
	return func(n *Node) []string {
		for i := range p.affinity {
			v, ok := n.Object.Labels[p.affinity[i].key]
			if !ok || (!first && !near[domain{p.affinity[i].key, v}]) {
				return whyAffinity
			}
		}
		for i := range p.anti {
			if v, ok := n.Object.Labels[p.anti[i].key]; ok && far[domain{p.anti[i].key, v}] {
				return whyAnti
			}
		}
		for d := range closed {
			if v, ok := n.Object.Labels[d.key]; ok && v == d.value {
				return whyOther
			}
		}
		return nil
	}
}

// closedTo are the places that existing pods' anti-affinity closes to p.
func closedTo(s *Snapshot, p *Prepared) map[domain]bool {
	var closed map[domain]bool
	for _, n := range s.binding {
		for _, other := range n.pods {
			for i := range other.anti {
				if !other.anti[i].matches(s, p) {
					continue
				}
				if closed == nil {
					closed = map[domain]bool{}
				}
				n.mark(closed, other.anti[i:i+1])
			}
		}
	}
	return closed
}

func (n *Node) mark(set map[domain]bool, terms []term) {
	for i := range terms {
		if v, ok := n.Object.Labels[terms[i].key]; ok {
			set[domain{terms[i].key, v}] = true
		}
	}
}
