package decide

import (
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// dislikedTaints prefers nodes with few PreferNoSchedule taints not tolerated.
func dislikedTaints(_ *Snapshot, p *Prepared, nodes []*Node, out []int64) bool {
	any := false
	for i, n := range nodes {
		for j := range n.taints {
			t := &n.taints[j]
			if t.Effect == corev1.TaintEffectPreferNoSchedule && !tolerates(p.Object.Spec.Tolerations, t) {
				out[i]++
				any = true
			}
		}
	}
	normalize(out, true)
	return any
}

// likedNodes prefers nodes that the pod's preferred node affinity names.
func likedNodes(_ *Snapshot, p *Prepared, nodes []*Node, out []int64) bool {
	if p.preferred == nil {
		return false
	}
	for i, n := range nodes {
		out[i] = p.preferred.Score(n.Object)
	}
	normalize(out, false)
	return true
}

// leastAllocated prefers nodes with much left of CPU and memory.
func leastAllocated(_ *Snapshot, p *Prepared, nodes []*Node, out []int64) bool {
	for i, n := range nodes {
		out[i] = (left(p.score.CPU, n.scored.CPU, n.allocatable.CPU) + left(p.score.Memory, n.scored.Memory, n.allocatable.Memory)) / 2
	}
	return true
}

func left(want, used, have int64) int64 {
	if have <= 0 || used+want > have {
		return 0
	}
	return (have - used - want) * full / have
}

// balanced prefers nodes whose CPU and memory fill up evenly.
func balanced(_ *Snapshot, p *Prepared, nodes []*Node, out []int64) bool {
	if p.Requests.CPU == 0 && p.Requests.Memory == 0 {
		return false // best effort: nothing to balance
	}
	for i, n := range nodes {
		cpu := part(n.used.CPU+p.Requests.CPU, n.allocatable.CPU)
		memory := part(n.used.Memory+p.Requests.Memory, n.allocatable.Memory)
		out[i] = int64(full * (1 - math.Abs(cpu-memory)/2))
	}
	return true
}

func part(used, have int64) float64 {
	if have <= 0 {
		return 1
	}
	return min(1, float64(used)/float64(have))
}

// Sizes between which the presence of images matters, per container.
const (
	smallImages = 23 << 20
	largeImages = 1000 << 20
)

// imagePresent prefers nodes that have the pod's images, less so for images
// that few nodes have, or the first node to pull one would attract them all.
func imagePresent(s *Snapshot, p *Prepared, nodes []*Node, out []int64) bool {
	known := false
	images := make([]string, 0, len(p.Object.Spec.Containers))
	for _, c := range p.Object.Spec.Containers {
		name := canonical(c.Image)
		images = append(images, name)
		known = known || s.images[name] > 0
	}
	if !known {
		return false
	}
	high := int64(largeImages * len(images))
	for i, n := range nodes {
		sum := int64(0)
		for _, name := range images {
			if size, ok := n.images[name]; ok {
				sum += size * int64(s.images[name]) / int64(len(s.nodes))
			}
		}
		out[i] = full * (min(max(sum, smallImages), high) - smallImages) / (high - smallImages)
	}
	return true
}

// canonical adds the tag that an image name leaves out.
func canonical(image string) string {
	last := image[strings.LastIndexByte(image, '/')+1:]
	if image == "" || strings.ContainsAny(last, ":@") {
		return image
	}
	return image + ":latest"
}
