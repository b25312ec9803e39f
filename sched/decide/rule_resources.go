package decide

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// resources refuses nodes whose free amounts are smaller than the requests.
func resources(_ *Snapshot, p *Prepared) filter {
	req := p.Requests
	others := slices.Sorted(maps.Keys(req.Other))
	fits := func(n *Node) bool {
		if n.used.Pods+1 > n.allocatable.Pods || short(req.CPU, n.used.CPU, n.allocatable.CPU) ||
			short(req.Memory, n.used.Memory, n.allocatable.Memory) ||
			short(req.Ephemeral, n.used.Ephemeral, n.allocatable.Ephemeral) {
			return false
		}
		for _, k := range others {
			if short(req.Other[k], n.used.Other[k], n.allocatable.Other[k]) {
				return false
			}
		}
		return true
	}
	return func(n *Node) []string {
		if fits(n) {
			return nil
		}
		var why []string
		if n.used.Pods+1 > n.allocatable.Pods {
			why = append(why, ReasonPods)
		}
		add := func(name corev1.ResourceName, want, used, have int64) {
			if short(want, used, have) {
				why = append(why, reasonInsufficient+string(name))
			}
		}
		add(corev1.ResourceCPU, req.CPU, n.used.CPU, n.allocatable.CPU)
		add(corev1.ResourceMemory, req.Memory, n.used.Memory, n.allocatable.Memory)
		add(corev1.ResourceEphemeralStorage, req.Ephemeral, n.used.Ephemeral, n.allocatable.Ephemeral)
		for _, k := range others {
			add(k, req.Other[k], n.used.Other[k], n.allocatable.Other[k])
		}
		return why
	}
}

// short: who asks for nothing is never refused, not even by a full node.
func short(want, used, have int64) bool { return want > 0 && want > have-used }
