package decide

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
)

// Resources is an amount of what nodes have and pods ask for.
type Resources struct {
	CPU       int64 // thousandths of a core
	Memory    int64 // bytes
	Ephemeral int64 // bytes
	Pods      int64
	Other     map[corev1.ResourceName]int64 // extended resources and huge pages
}

func fromList(l corev1.ResourceList) Resources {
	var r Resources
	for name, q := range l {
		switch name {
		case corev1.ResourceCPU:
			r.CPU = q.MilliValue()
		case corev1.ResourceMemory:
			r.Memory = q.Value()
		case corev1.ResourceEphemeralStorage:
			r.Ephemeral = q.Value()
		case corev1.ResourcePods:
			r.Pods = q.Value()
		default:
			if r.Other == nil {
				r.Other = map[corev1.ResourceName]int64{}
			}
			r.Other[name] = q.Value()
		}
	}
	return r
}

// plus returns r with sign times o added; r's map is not shared.
func (r Resources) plus(o Resources, sign int64) Resources {
	r.CPU += sign * o.CPU
	r.Memory += sign * o.Memory
	r.Ephemeral += sign * o.Ephemeral
	r.Pods += sign * o.Pods
	if len(o.Other) == 0 {
		return r
	}
	sum := make(map[corev1.ResourceName]int64, len(r.Other)+len(o.Other))
	maps.Copy(sum, r.Other)
	for k, v := range o.Other {
		if sum[k] += sign * v; sum[k] == 0 {
			delete(sum, k)
		}
	}
	r.Other = sum
	return r
}
