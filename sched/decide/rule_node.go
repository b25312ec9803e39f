package decide

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// nodeName refuses all nodes but the one that the pod names.
func nodeName(_ *Snapshot, p *Prepared) filter {
	name := p.Object.Spec.NodeName
	if name == "" {
		return nil
	}
	why := one(ReasonName)
	return func(n *Node) []string {
		if n.Name == name {
			return nil
		}
		return why
	}
}

// unschedulable refuses cordoned nodes, unless the pod tolerates their taint.
func unschedulable(_ *Snapshot, p *Prepared) filter {
	why := one(ReasonUnschedulable)
	tolerated := tolerates(p.Object.Spec.Tolerations, &corev1.Taint{
		Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule,
	})
	return func(n *Node) []string {
		if n.unschedulable && !tolerated {
			return why
		}
		return nil
	}
}

// nodeAffinity refuses nodes outside the pod's selector and required affinity.
func nodeAffinity(_ *Snapshot, p *Prepared) filter {
	if !p.hasWishes {
		return nil
	}
	why := one(ReasonAffinity)
	return func(n *Node) []string {
		if ok, err := p.required.Match(n.Object); err != nil || !ok {
			return why
		}
		return nil
	}
}

// hostPorts refuses nodes where another pod has one of the host ports.
func hostPorts(_ *Snapshot, p *Prepared) filter {
	if len(p.ports) == 0 {
		return nil
	}
	why := one(ReasonPorts)
	return func(n *Node) []string {
		for _, taken := range n.ports {
			if slices.ContainsFunc(p.ports, taken.clashes) {
				return why
			}
		}
		return nil
	}
}
