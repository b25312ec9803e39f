// Package pressure decides when a node runs short of memory, disk or process
// ids, which of its pods has to go then, and which images.
//
// Its invariant: it is pure, and who stays within what he asked for goes after
// everybody who does not.
package pressure

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Signal names what may run short, by the words of KubeletConfiguration.
type Signal string

// The signals there are.
const (
	Memory      Signal = "memory.available"
	NodeDisk    Signal = "nodefs.available"
	NodeInodes  Signal = "nodefs.inodesFree"
	ImageDisk   Signal = "imagefs.available"
	ImageInodes Signal = "imagefs.inodesFree"
	PIDs        Signal = "pid.available"
)

// Condition is the node's condition under the signal.
func (s Signal) Condition() corev1.NodeConditionType {
	switch s {
	case Memory:
		return corev1.NodeMemoryPressure
	case PIDs:
		return corev1.NodePIDPressure
	default:
		return corev1.NodeDiskPressure
	}
}

// Resource is what runs short, as messages to users call it.
func (s Signal) Resource() corev1.ResourceName {
	switch s {
	case Memory:
		return corev1.ResourceMemory
	case PIDs:
		return "pids"
	case NodeInodes, ImageInodes:
		return "inodes"
	default:
		return corev1.ResourceEphemeralStorage
	}
}

// Threshold is how little there may be of a signal: an amount, or a share of
// the capacity where Percent is set.
type Threshold struct {
	Signal  Signal
	Amount  int64
	Percent float64
}

// Defaults are the thresholds of an unconfigured kubelet, by the documentation
// of node-pressure eviction. It has none for process ids.
func Defaults() []Threshold {
	return []Threshold{
		{Signal: Memory, Amount: 100 << 20},
		{Signal: NodeDisk, Percent: 10},
		{Signal: NodeInodes, Percent: 5},
		{Signal: ImageDisk, Percent: 15},
		{Signal: ImageInodes, Percent: 5},
	}
}

// Parse reads thresholds as evictionHard writes them: "100Mi" or "10%".
func Parse(in map[string]string) ([]Threshold, error) {
	var out []Threshold
	for name, value := range in {
		t := Threshold{Signal: Signal(name)}
		if !slices.Contains([]Signal{Memory, NodeDisk, NodeInodes, ImageDisk, ImageInodes, PIDs}, t.Signal) {
			return nil, fmt.Errorf("eviction threshold %s: no such signal", name)
		}
		if share, ok := strings.CutSuffix(value, "%"); ok {
			p, err := strconv.ParseFloat(share, 64)
			if err != nil || p < 0 || p > 100 {
				return nil, fmt.Errorf("eviction threshold %s: %q is no percentage", name, value)
			}
			t.Percent = p
		} else {
			q, err := resource.ParseQuantity(value)
			if err != nil || q.Sign() < 0 {
				return nil, fmt.Errorf("eviction threshold %s: %q is no amount", name, value)
			}
			t.Amount = q.Value()
		}
		if t.Amount > 0 || t.Percent > 0 { // 0 switches it off
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b Threshold) int { return strings.Compare(string(a.Signal), string(b.Signal)) })
	return out, nil
}

// Sample is what a node has of a signal.
type Sample struct{ Available, Capacity int64 }

// least is how little of s there may be.
func (t Threshold) least(s Sample) int64 {
	if t.Percent > 0 {
		return int64(float64(s.Capacity) * t.Percent / 100)
	}
	return t.Amount
}

// Transition is for how long a condition lasts after its signal was last
// short: it must not come and go with each pod that is evicted.
const Transition = 5 * time.Minute

// Monitor remembers which signals were short. Its zero value has none.
type Monitor struct {
	last map[corev1.NodeConditionType]time.Time
}

// Short is a signal of which there is too little.
type Short struct {
	Threshold Threshold
	Sample    Sample
}

// Observe takes what the node has now and returns what is short, the most
// pressing first: memory, which kills by itself, then process ids, then disk.
func (m *Monitor) Observe(thresholds []Threshold, now time.Time, have map[Signal]Sample) []Short {
	var out []Short
	for _, t := range thresholds {
		s, ok := have[t.Signal]
		if !ok || s.Capacity <= 0 || s.Available >= t.least(s) {
			continue
		}
		if m.last == nil {
			m.last = map[corev1.NodeConditionType]time.Time{}
		}
		m.last[t.Signal.Condition()] = now
		out = append(out, Short{t, s})
	}
	rank := func(s Short) int {
		switch s.Threshold.Signal {
		case Memory:
			return 0
		case PIDs:
			return 1
		default:
			return 2
		}
	}
	slices.SortStableFunc(out, func(a, b Short) int { return rank(a) - rank(b) })
	return out
}

// Conditions are those that the node is under, sorted.
func (m *Monitor) Conditions(now time.Time) []corev1.NodeConditionType {
	var out []corev1.NodeConditionType
	for c, at := range m.last {
		if now.Sub(at) < Transition {
			out = append(out, c)
		}
	}
	slices.Sort(out)
	return out
}
