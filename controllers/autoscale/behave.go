package autoscale

import (
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

// Mark is a number at a time: a recommendation, or a change that was made.
type Mark struct {
	At time.Time
	N  int32
}

// Memory is what an autoscaler remembers of the last minutes.
type Memory struct {
	Advice   []Mark // recommendations
	Up, Down []Mark // pods added and removed
}

// Windows without settings of their own: down slowly, up at once.
const (
	downWindow = 5 * time.Minute
	forgetting = 30 * time.Minute
)

func upRules(b *autoscalingv2.HorizontalPodAutoscalerBehavior) autoscalingv2.HPAScalingRules {
	r := autoscalingv2.HPAScalingRules{Policies: []autoscalingv2.HPAScalingPolicy{
		{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15}, {Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15},
	}, StabilizationWindowSeconds: new(int32)}
	if b != nil {
		overlay(&r, b.ScaleUp)
	}
	return r
}

func downRules(b *autoscalingv2.HorizontalPodAutoscalerBehavior) autoscalingv2.HPAScalingRules {
	r := autoscalingv2.HPAScalingRules{Policies: []autoscalingv2.HPAScalingPolicy{
		{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15},
	}, StabilizationWindowSeconds: new(int32(downWindow / time.Second))}
	if b != nil {
		overlay(&r, b.ScaleDown)
	}
	return r
}

func overlay(r, with *autoscalingv2.HPAScalingRules) {
	if with == nil {
		return
	}
	if with.StabilizationWindowSeconds != nil {
		r.StabilizationWindowSeconds = with.StabilizationWindowSeconds
	}
	if len(with.Policies) > 0 {
		r.Policies = with.Policies
	}
	r.SelectPolicy = with.SelectPolicy
}

// Behave turns what the metrics ask for into what is done now: the calmest
// recommendation of each window, no faster than the policies, within bounds.
// why says what held it back, "" if nothing did. The memory is updated.
func Behave(m *Memory, b *autoscalingv2.HorizontalPodAutoscalerBehavior, current, desired, least, most int32, now time.Time) (n int32, why string) {
	m.forget(now)
	m.Advice = append(m.Advice, Mark{now, desired})
	up, down := upRules(b), downRules(b)
	n = stabilize(m.Advice, current, up, down, now)
	if n != desired {
		why = "ScaleDownStabilized"
		if n < desired {
			why = "ScaleUpStabilized"
		}
	}
	switch {
	case n > current:
		if limit := upLimit(m, current, up, now); n > limit {
			n, why = max(limit, current), "ScaleUpLimit"
		}
	case n < current:
		if limit := downLimit(m, current, down, now); n < limit {
			n, why = min(limit, current), "ScaleDownLimit"
		}
	}
	if n > most {
		n, why = most, "TooManyReplicas"
	}
	if n < least {
		n, why = least, "TooFewReplicas"
	}
	return n, why
}

func (m *Memory) forget(now time.Time) {
	for _, list := range []*[]Mark{&m.Advice, &m.Up, &m.Down} {
		kept := (*list)[:0]
		for _, x := range *list {
			if now.Sub(x.At) < forgetting {
				kept = append(kept, x)
			}
		}
		*list = kept
	}
}

// Scaled remembers a change that was made.
func (m *Memory) Scaled(from, to int32, now time.Time) {
	if to > from {
		m.Up = append(m.Up, Mark{now, to - from})
	} else if to < from {
		m.Down = append(m.Down, Mark{now, from - to})
	}
}

func stabilize(advice []Mark, current int32, up, down autoscalingv2.HPAScalingRules, now time.Time) int32 {
	newest := advice[len(advice)-1].N
	low, high := newest, newest
	for _, a := range advice {
		if now.Sub(a.At) < time.Duration(*up.StabilizationWindowSeconds)*time.Second {
			low = min(low, a.N)
		}
		if now.Sub(a.At) < time.Duration(*down.StabilizationWindowSeconds)*time.Second {
			high = max(high, a.N)
		}
	}
	return min(max(current, low), max(high, low))
}

func changed(list []Mark, seconds int32, now time.Time) int32 {
	n := int32(0)
	for _, x := range list {
		if now.Sub(x.At) < time.Duration(seconds)*time.Second {
			n += x.N
		}
	}
	return n
}

func upLimit(m *Memory, current int32, r autoscalingv2.HPAScalingRules, now time.Time) int32 {
	return limit(r, current, func(p autoscalingv2.HPAScalingPolicy) int32 {
		start := current - changed(m.Up, p.PeriodSeconds, now) + changed(m.Down, p.PeriodSeconds, now)
		if p.Type == autoscalingv2.PodsScalingPolicy {
			return start + p.Value
		}
		return int32(math.Ceil(float64(start) * (1 + float64(p.Value)/100)))
	}, true)
}

func downLimit(m *Memory, current int32, r autoscalingv2.HPAScalingRules, now time.Time) int32 {
	return limit(r, current, func(p autoscalingv2.HPAScalingPolicy) int32 {
		start := current - changed(m.Up, p.PeriodSeconds, now) + changed(m.Down, p.PeriodSeconds, now)
		if p.Type == autoscalingv2.PodsScalingPolicy {
			return start - p.Value
		}
		return int32(float64(start) * (1 - float64(p.Value)/100))
	}, false)
}

// limit is that of the policy which changes most, or least, or none at all.
func limit(r autoscalingv2.HPAScalingRules, current int32, of func(autoscalingv2.HPAScalingPolicy) int32, up bool) int32 {
	if r.SelectPolicy != nil && *r.SelectPolicy == autoscalingv2.DisabledPolicySelect {
		return current
	}
	higher := up == (r.SelectPolicy == nil || *r.SelectPolicy != autoscalingv2.MinChangePolicySelect)
	out := of(r.Policies[0])
	for _, p := range r.Policies[1:] {
		if higher {
			out = max(out, of(p))
		} else {
			out = min(out, of(p))
		}
	}
	return out
}
