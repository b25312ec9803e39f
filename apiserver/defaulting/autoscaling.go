package defaulting

import (
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
)

// CPUTarget is the percentage of its request that pods are kept at when an
// autoscaler names no metric.
const CPUTarget = 80

// The pace of scaling: up at most by four pods or to the double every quarter
// of a minute, down as far as wanted.
const (
	scalePeriod   = 15
	scaleUpPods   = 4
	scaleUpDouble = 100
)

// HorizontalPodAutoscaler defaults an autoscaler. Its behaviour is completed
// only where the user says something about it.
func HorizontalPodAutoscaler(h *autoscalingv2.HorizontalPodAutoscaler) {
	s := &h.Spec
	point(&s.MinReplicas, 1)
	if len(s.Metrics) == 0 {
		s.Metrics = CPUMetric(CPUTarget)
	}
	if s.Behavior == nil {
		return
	}
	half := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: scaleUpDouble, PeriodSeconds: scalePeriod}
	pods := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PodsScalingPolicy, Value: scaleUpPods, PeriodSeconds: scalePeriod}
	scaling(&s.Behavior.ScaleUp, pods, half)
	scaling(&s.Behavior.ScaleDown, half)
	point(&s.Behavior.ScaleUp.StabilizationWindowSeconds, 0)
}

func scaling(r **autoscalingv2.HPAScalingRules, policies ...autoscalingv2.HPAScalingPolicy) {
	point(r, autoscalingv2.HPAScalingRules{})
	point(&(*r).SelectPolicy, autoscalingv2.MaxChangePolicySelect)
	if (*r).Policies == nil {
		(*r).Policies = policies
	}
}

// CPUMetric is the metric that keeps pods at a percentage of the CPU they request.
func CPUMetric(percent int32) []autoscalingv2.MetricSpec {
	return []autoscalingv2.MetricSpec{{
		Type: autoscalingv2.ResourceMetricSourceType,
		Resource: &autoscalingv2.ResourceMetricSource{
			Name:   corev1.ResourceCPU,
			Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
		},
	}}
}
