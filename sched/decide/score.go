package decide

import (
	"math/bits"
)

// full is the best mark a scorer gives.
const full = 100

// scorer marks each of nodes from 0 to full in out, which starts at zero; it
// returns false when it has nothing to say about the pod.
type scorer struct {
	weight int64
	score  func(s *Snapshot, p *Prepared, nodes []*Node, out []int64) bool
}

// scorers and their weights; those that upstream has carry its weights.
func scorers() []scorer {
	return []scorer{
		{3, dislikedTaints},
		{2, likedNodes},
		{2, likedPods},
		{2, softSpread},
		{2, spreadGroup},
		{1, leastAllocated},
		{1, balanced},
		{1, imagePresent},
	}
}

// best is the node with the highest sum of marks, told apart by seed.
func best(s *Snapshot, p *Prepared, nodes []*Node, seed uint64) *Node {
	if len(nodes) == 1 {
		return nodes[0]
	}
	total := make([]int64, len(nodes))
	marks := make([]int64, len(nodes))
	for _, sc := range scorers() {
		clear(marks)
		if !sc.score(s, p, nodes, marks) {
			continue
		}
		for i, m := range marks {
			total[i] += sc.weight * m
		}
	}
	top, ties := total[0], 0
	for _, t := range total {
		switch {
		case t > top:
			top, ties = t, 1
		case t == top:
			ties++
		}
	}
	pick := int(mix(seed) % uint64(ties))
	for i, t := range total {
		if t != top {
			continue
		}
		if pick == 0 {
			return nodes[i]
		}
		pick--
	}
	return nodes[0] // not reached: pick is below ties
}

// mix spreads a seed's bits (splitmix64's finalizer), so that counting seeds
// do not walk the nodes in order.
func mix(x uint64) uint64 {
	x ^= bits.RotateLeft64(x, 25) + 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// normalize stretches marks so that the highest becomes full; reverse turns
// them round. Marks are not negative. Equal marks say nothing.
func normalize(marks []int64, reverse bool) {
	high := int64(0)
	for _, m := range marks {
		high = max(high, m)
	}
	for i, m := range marks {
		if high > 0 {
			marks[i] = full * m / high
		}
		if reverse {
			marks[i] = full - marks[i]
		}
	}
}

// shift makes marks, which may be negative, start at zero.
func shift(marks []int64) {
	low := marks[0]
	for _, m := range marks {
		low = min(low, m)
	}
	for i := range marks {
		marks[i] -= low
	}
}
