package kinds

import (
	"fmt"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// metricsShown is how many metrics of an autoscaler a line shows.
const metricsShown = 2

// HorizontalPodAutoscaler declares autoscalers, stored as autoscaling/v2.
func HorizontalPodAutoscaler() registry.Kind {
	spec, status := autoscalingv2.HorizontalPodAutoscalerSpec{}, autoscalingv2.HorizontalPodAutoscalerStatus{}
	k := namespaced[autoscalingv2.HorizontalPodAutoscaler, autoscalingv2.HorizontalPodAutoscalerList](
		autoscalingv2.SchemeGroupVersion, "horizontalpodautoscalers", "hpa")
	k.Categories = []string{"all"}
	v1 := version[autoscalingv1.HorizontalPodAutoscaler, autoscalingv1.HorizontalPodAutoscalerList](
		autoscalingv1.SchemeGroupVersion, "horizontalpodautoscalers")
	v1.FromHub, v1.ToHub = scalerFromHub, scalerToHub
	k.Versions = []registry.Version{v1}
	k.Columns = []metav1.TableColumnDefinition{
		str("Reference", describe(spec, "scaleTargetRef")), str("Targets", describe(spec, "metrics")),
		str("MinPods", describe(spec, "minReplicas")), str("MaxPods", describe(spec, "maxReplicas")),
		str("Replicas", describe(status, "currentReplicas")), ageColumn(),
	}
	k.Row = row(func(h *autoscalingv2.HorizontalPodAutoscaler) []any {
		least := unset
		if n := h.Spec.MinReplicas; n != nil {
			least = fmt.Sprint(*n)
		}
		return []any{
			h.Spec.ScaleTargetRef.Kind + "/" + h.Spec.ScaleTargetRef.Name, scalerTargets(h), least,
			int64(h.Spec.MaxReplicas), int64(h.Status.CurrentReplicas), age(h.CreationTimestamp),
		}
	})
	k.Default = defaults(defaulting.HorizontalPodAutoscaler)
	divide(&k, true, rules[*autoscalingv2.HorizontalPodAutoscaler]{
		create:   dropScalerAnnotations,
		update:   func(h, _ *autoscalingv2.HorizontalPodAutoscaler) { dropScalerAnnotations(h) },
		validate: validation.HorizontalPodAutoscaler, validateUpdate: validation.HorizontalPodAutoscalerUpdate,
	}, rules[*autoscalingv2.HorizontalPodAutoscaler]{validateUpdate: validation.HorizontalPodAutoscalerStatusUpdate})
	return k
}

// scalerTargets shows what is measured beside what is wanted.
func scalerTargets(h *autoscalingv2.HorizontalPodAutoscaler) string {
	if len(h.Spec.Metrics) == 0 {
		return none
	}
	var list []string
	for i := range h.Spec.Metrics {
		now := autoscalingv2.MetricStatus{}
		if i < len(h.Status.CurrentMetrics) {
			now = h.Status.CurrentMetrics[i]
		}
		list = append(list, scalerTarget(&h.Spec.Metrics[i], &now))
	}
	if more := len(list) - metricsShown; more > 0 {
		return fmt.Sprintf("%s + %d more...", strings.Join(list[:metricsShown], ", "), more)
	}
	return strings.Join(list, ", ")
}

func scalerTarget(m *autoscalingv2.MetricSpec, now *autoscalingv2.MetricStatus) string {
	var value *autoscalingv2.MetricValueStatus
	switch {
	case m.Type == autoscalingv2.ExternalMetricSourceType && m.External != nil:
		if now.External != nil {
			value = &now.External.Current
		}
		return totalOrAverage(m.External.Target, value)
	case m.Type == autoscalingv2.ObjectMetricSourceType && m.Object != nil:
		if now.Object != nil {
			value = &now.Object.Current
		}
		return totalOrAverage(m.Object.Target, value)
	case m.Type == autoscalingv2.PodsMetricSourceType && m.Pods != nil:
		current := unknown
		if now.Pods != nil {
			current = quantity(now.Pods.Current.AverageValue)
		}
		return current + "/" + quantity(m.Pods.Target.AverageValue)
	case m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource != nil:
		if now.Resource != nil {
			value = &now.Resource.Current
		}
		return usage(m.Resource.Name, m.Resource.Target, value)
	case m.Type == autoscalingv2.ContainerResourceMetricSourceType && m.ContainerResource != nil:
		if now.ContainerResource != nil {
			value = &now.ContainerResource.Current
		}
		return usage(m.ContainerResource.Name, m.ContainerResource.Target, value)
	default:
		return "<unknown type>"
	}
}

// quantity prints an amount as upstream does, which prints none as 0 or <nil>.
func quantity(q *resource.Quantity) string { return q.String() }

func totalOrAverage(want autoscalingv2.MetricTarget, now *autoscalingv2.MetricValueStatus) string {
	current := unknown
	if want.AverageValue != nil {
		if now != nil && now.AverageValue != nil {
			current = quantity(now.AverageValue)
		}
		return current + "/" + quantity(want.AverageValue) + " (avg)"
	}
	if now != nil {
		current = quantity(now.Value)
	}
	return current + "/" + quantity(want.Value)
}

func usage(name corev1.ResourceName, want autoscalingv2.MetricTarget, now *autoscalingv2.MetricValueStatus) string {
	current := unknown
	if want.AverageValue != nil {
		if now != nil {
			current = quantity(now.AverageValue)
		}
		return fmt.Sprintf("%s: %s/%s", name, current, quantity(want.AverageValue))
	}
	if now != nil && now.AverageUtilization != nil {
		current = fmt.Sprintf("%d%%", *now.AverageUtilization)
	}
	goal := "<auto>"
	if n := want.AverageUtilization; n != nil {
		goal = fmt.Sprintf("%d%%", *n)
	}
	return fmt.Sprintf("%s: %s/%s", name, current, goal)
}
