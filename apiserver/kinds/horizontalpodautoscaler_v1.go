package kinds

import (
	"encoding/json"
	"fmt"
	"maps"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"skein.dev/skein/apiserver/defaulting"
)

// autoscaling/v1 knows one metric, the use of the CPU. What it has no fields
// for travels in annotations.
const (
	scalerPrefix     = "autoscaling.alpha.kubernetes.io/"
	scalerMetrics    = scalerPrefix + "metrics"
	scalerCurrent    = scalerPrefix + "current-metrics"
	scalerConditions = scalerPrefix + "conditions"
	scalerBehavior   = scalerPrefix + "behavior"
)

func scalerAnnotations() []string {
	return []string{
		scalerMetrics, scalerCurrent, scalerConditions, scalerBehavior,
		scalerPrefix + "scale-down-tolerance", scalerPrefix + "scale-up-tolerance",
	}
}

func dropScalerAnnotations(h *autoscalingv2.HorizontalPodAutoscaler) {
	h.Annotations = withoutScaler(h.Annotations)
}

// withoutScaler returns annotations without those of the conversion. It does
// not change its argument.
func withoutScaler(all map[string]string) map[string]string {
	out := maps.Clone(all)
	for _, key := range scalerAnnotations() {
		delete(out, key)
	}
	return out
}

func cpuUse(m *autoscalingv2.MetricSpec) bool {
	return m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource != nil &&
		m.Resource.Name == corev1.ResourceCPU && m.Resource.Target.AverageUtilization != nil
}

func scalerFromHub(in, out runtime.Object) error {
	h, ok := in.(*autoscalingv2.HorizontalPodAutoscaler)
	o, ok2 := out.(*autoscalingv1.HorizontalPodAutoscaler)
	if !ok || !ok2 {
		return fmt.Errorf("convert %T to %T: not autoscalers", in, out)
	}
	*o = autoscalingv1.HorizontalPodAutoscaler{
		ObjectMeta: h.ObjectMeta,
		Spec: autoscalingv1.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv1.CrossVersionObjectReference(h.Spec.ScaleTargetRef),
			MinReplicas:    h.Spec.MinReplicas, MaxReplicas: h.Spec.MaxReplicas,
		},
		Status: autoscalingv1.HorizontalPodAutoscalerStatus{
			ObservedGeneration: h.Status.ObservedGeneration, LastScaleTime: h.Status.LastScaleTime,
			CurrentReplicas: h.Status.CurrentReplicas, DesiredReplicas: h.Status.DesiredReplicas,
		},
	}
	o.Annotations = withoutScaler(h.Annotations)
	var others []autoscalingv1.MetricSpec
	for i := range h.Spec.Metrics {
		m := &h.Spec.Metrics[i]
		if !cpuUse(m) {
			others = append(others, metricFromHub(m))
		} else if o.Spec.TargetCPUUtilizationPercentage == nil {
			o.Spec.TargetCPUUtilizationPercentage = clone(m.Resource.Target.AverageUtilization)
		}
	}
	var current []autoscalingv1.MetricStatus
	for i := range h.Status.CurrentMetrics {
		m := &h.Status.CurrentMetrics[i]
		if m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource != nil && m.Resource.Name == corev1.ResourceCPU &&
			o.Status.CurrentCPUUtilizationPercentage == nil {
			o.Status.CurrentCPUUtilizationPercentage = clone(m.Resource.Current.AverageUtilization)
		}
		current = append(current, measureFromHub(m))
	}
	return noteScaler(&o.ObjectMeta, []note{
		{scalerMetrics, others, len(others) > 0},
		{scalerCurrent, current, len(current) > 0},
		{scalerBehavior, h.Spec.Behavior, h.Spec.Behavior != nil},
		{scalerConditions, h.Status.Conditions, len(h.Status.Conditions) > 0},
	})
}

// note is a part of an autoscaler that becomes an annotation.
type note struct {
	key   string
	value any
	set   bool
}

func noteScaler(m *metav1.ObjectMeta, notes []note) error {
	for _, n := range notes {
		if !n.set {
			continue
		}
		text, err := json.Marshal(n.value)
		if err != nil {
			return fmt.Errorf("encode %s: %w", n.key, err)
		}
		metav1.SetMetaDataAnnotation(m, n.key, string(text))
	}
	return nil
}

func scalerToHub(in, hub runtime.Object) error {
	o, ok := in.(*autoscalingv1.HorizontalPodAutoscaler)
	h, ok2 := hub.(*autoscalingv2.HorizontalPodAutoscaler)
	if !ok || !ok2 {
		return fmt.Errorf("convert %T to %T: not autoscalers", in, hub)
	}
	*h = autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: o.ObjectMeta,
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference(o.Spec.ScaleTargetRef),
			MinReplicas:    o.Spec.MinReplicas, MaxReplicas: o.Spec.MaxReplicas,
		},
		Status: autoscalingv2.HorizontalPodAutoscalerStatus{
			ObservedGeneration: o.Status.ObservedGeneration, LastScaleTime: o.Status.LastScaleTime,
			CurrentReplicas: o.Status.CurrentReplicas, DesiredReplicas: o.Status.DesiredReplicas,
		},
	}
	h.Annotations = withoutScaler(o.Annotations)
	// What cannot be read is ignored: any user may have written it.
	var others []autoscalingv1.MetricSpec
	if text, ok := o.Annotations[scalerMetrics]; ok && json.Unmarshal([]byte(text), &others) == nil {
		for i := range others {
			h.Spec.Metrics = append(h.Spec.Metrics, metricToHub(&others[i]))
		}
	}
	if n := o.Spec.TargetCPUUtilizationPercentage; n != nil {
		h.Spec.Metrics = append(h.Spec.Metrics, defaulting.CPUMetric(*n)...)
	}
	behavior := autoscalingv2.HorizontalPodAutoscalerBehavior{}
	if text, ok := o.Annotations[scalerBehavior]; ok && json.Unmarshal([]byte(text), &behavior) == nil &&
		behavior != (autoscalingv2.HorizontalPodAutoscalerBehavior{}) {
		h.Spec.Behavior = &behavior
	}
	scalerStatusToHub(o, h)
	return nil
}

func scalerStatusToHub(o *autoscalingv1.HorizontalPodAutoscaler, h *autoscalingv2.HorizontalPodAutoscaler) {
	if n := o.Status.CurrentCPUUtilizationPercentage; n != nil {
		h.Status.CurrentMetrics = []autoscalingv2.MetricStatus{{
			Type: autoscalingv2.ResourceMetricSourceType,
			Resource: &autoscalingv2.ResourceMetricStatus{
				Name: corev1.ResourceCPU, Current: autoscalingv2.MetricValueStatus{AverageUtilization: clone(n)},
			},
		}}
	}
	var current []autoscalingv1.MetricStatus
	if text, ok := o.Annotations[scalerCurrent]; ok && json.Unmarshal([]byte(text), &current) == nil {
		h.Status.CurrentMetrics = make([]autoscalingv2.MetricStatus, len(current))
		for i := range current {
			h.Status.CurrentMetrics[i] = measureToHub(&current[i])
		}
	}
	var conditions []autoscalingv2.HorizontalPodAutoscalerCondition
	if text, ok := o.Annotations[scalerConditions]; ok && json.Unmarshal([]byte(text), &conditions) == nil {
		h.Status.Conditions = conditions
	}
}

func metricFromHub(m *autoscalingv2.MetricSpec) autoscalingv1.MetricSpec {
	out := autoscalingv1.MetricSpec{Type: autoscalingv1.MetricSourceType(m.Type)}
	if s := m.Object; s != nil {
		out.Object = &autoscalingv1.ObjectMetricSource{
			Target: autoscalingv1.CrossVersionObjectReference(s.DescribedObject), MetricName: s.Metric.Name, Selector: s.Metric.Selector,
			TargetValue: valueOr(s.Target.Value, resource.Quantity{}), AverageValue: s.Target.AverageValue,
		}
	}
	if s := m.Pods; s != nil {
		out.Pods = &autoscalingv1.PodsMetricSource{
			MetricName: s.Metric.Name, Selector: s.Metric.Selector, TargetAverageValue: valueOr(s.Target.AverageValue, resource.Quantity{}),
		}
	}
	if s := m.Resource; s != nil {
		out.Resource = &autoscalingv1.ResourceMetricSource{
			Name: s.Name, TargetAverageUtilization: s.Target.AverageUtilization, TargetAverageValue: s.Target.AverageValue,
		}
	}
	if s := m.ContainerResource; s != nil {
		out.ContainerResource = &autoscalingv1.ContainerResourceMetricSource{
			Name: s.Name, Container: s.Container,
			TargetAverageUtilization: s.Target.AverageUtilization, TargetAverageValue: s.Target.AverageValue,
		}
	}
	if s := m.External; s != nil {
		out.External = &autoscalingv1.ExternalMetricSource{
			MetricName: s.Metric.Name, MetricSelector: s.Metric.Selector, TargetValue: s.Target.Value, TargetAverageValue: s.Target.AverageValue,
		}
	}
	return out
}

func metricToHub(m *autoscalingv1.MetricSpec) autoscalingv2.MetricSpec {
	out := autoscalingv2.MetricSpec{Type: autoscalingv2.MetricSourceType(m.Type)}
	if s := m.Object; s != nil {
		t := autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: &s.TargetValue, AverageValue: s.AverageValue}
		if s.AverageValue != nil {
			if t.Type = autoscalingv2.AverageValueMetricType; s.TargetValue.IsZero() {
				t.Value = nil // v1 cannot leave it out
			}
		}
		out.Object = &autoscalingv2.ObjectMetricSource{
			DescribedObject: autoscalingv2.CrossVersionObjectReference(s.Target), Target: t,
			Metric: autoscalingv2.MetricIdentifier{Name: s.MetricName, Selector: s.Selector},
		}
	}
	if s := m.Pods; s != nil {
		out.Pods = &autoscalingv2.PodsMetricSource{
			Metric: autoscalingv2.MetricIdentifier{Name: s.MetricName, Selector: s.Selector},
			Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: &s.TargetAverageValue},
		}
	}
	if s := m.Resource; s != nil {
		out.Resource = &autoscalingv2.ResourceMetricSource{Name: s.Name, Target: useTarget(s.TargetAverageUtilization, s.TargetAverageValue)}
	}
	if s := m.ContainerResource; s != nil {
		out.ContainerResource = &autoscalingv2.ContainerResourceMetricSource{
			Name: s.Name, Container: s.Container, Target: useTarget(s.TargetAverageUtilization, s.TargetAverageValue),
		}
	}
	if s := m.External; s != nil {
		t := autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: s.TargetValue, AverageValue: s.TargetAverageValue}
		if s.TargetValue == nil {
			t.Type = autoscalingv2.AverageValueMetricType
		}
		out.External = &autoscalingv2.ExternalMetricSource{
			Metric: autoscalingv2.MetricIdentifier{Name: s.MetricName, Selector: s.MetricSelector}, Target: t,
		}
	}
	return out
}

func useTarget(percent *int32, value *resource.Quantity) autoscalingv2.MetricTarget {
	t := autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: percent, AverageValue: value}
	if percent == nil {
		t.Type = autoscalingv2.AverageValueMetricType
	}
	return t
}

func measureFromHub(m *autoscalingv2.MetricStatus) autoscalingv1.MetricStatus {
	zero := resource.Quantity{}
	out := autoscalingv1.MetricStatus{Type: autoscalingv1.MetricSourceType(m.Type)}
	if s := m.Object; s != nil {
		out.Object = &autoscalingv1.ObjectMetricStatus{
			Target: autoscalingv1.CrossVersionObjectReference(s.DescribedObject), MetricName: s.Metric.Name, Selector: s.Metric.Selector,
			CurrentValue: valueOr(s.Current.Value, zero), AverageValue: s.Current.AverageValue,
		}
	}
	if s := m.Pods; s != nil {
		out.Pods = &autoscalingv1.PodsMetricStatus{
			MetricName: s.Metric.Name, Selector: s.Metric.Selector, CurrentAverageValue: valueOr(s.Current.AverageValue, zero),
		}
	}
	if s := m.Resource; s != nil {
		out.Resource = &autoscalingv1.ResourceMetricStatus{
			Name: s.Name, CurrentAverageUtilization: s.Current.AverageUtilization, CurrentAverageValue: valueOr(s.Current.AverageValue, zero),
		}
	}
	if s := m.ContainerResource; s != nil {
		out.ContainerResource = &autoscalingv1.ContainerResourceMetricStatus{
			Name: s.Name, Container: s.Container,
			CurrentAverageUtilization: s.Current.AverageUtilization, CurrentAverageValue: valueOr(s.Current.AverageValue, zero),
		}
	}
	if s := m.External; s != nil {
		out.External = &autoscalingv1.ExternalMetricStatus{
			MetricName: s.Metric.Name, MetricSelector: s.Metric.Selector,
			CurrentValue: valueOr(s.Current.Value, zero), CurrentAverageValue: s.Current.AverageValue,
		}
	}
	return out
}

func measureToHub(m *autoscalingv1.MetricStatus) autoscalingv2.MetricStatus {
	out := autoscalingv2.MetricStatus{Type: autoscalingv2.MetricSourceType(m.Type)}
	if s := m.Object; s != nil {
		out.Object = &autoscalingv2.ObjectMetricStatus{
			DescribedObject: autoscalingv2.CrossVersionObjectReference(s.Target),
			Metric:          autoscalingv2.MetricIdentifier{Name: s.MetricName, Selector: s.Selector},
			Current:         autoscalingv2.MetricValueStatus{Value: &s.CurrentValue, AverageValue: s.AverageValue},
		}
	}
	if s := m.Pods; s != nil {
		out.Pods = &autoscalingv2.PodsMetricStatus{
			Metric:  autoscalingv2.MetricIdentifier{Name: s.MetricName, Selector: s.Selector},
			Current: autoscalingv2.MetricValueStatus{AverageValue: &s.CurrentAverageValue},
		}
	}
	if s := m.Resource; s != nil {
		out.Resource = &autoscalingv2.ResourceMetricStatus{
			Name: s.Name, Current: autoscalingv2.MetricValueStatus{AverageValue: &s.CurrentAverageValue, AverageUtilization: s.CurrentAverageUtilization},
		}
	}
	if s := m.ContainerResource; s != nil {
		out.ContainerResource = &autoscalingv2.ContainerResourceMetricStatus{
			Name: s.Name, Container: s.Container,
			Current: autoscalingv2.MetricValueStatus{AverageValue: &s.CurrentAverageValue, AverageUtilization: s.CurrentAverageUtilization},
		}
	}
	if s := m.External; s != nil {
		out.External = &autoscalingv2.ExternalMetricStatus{
			Metric:  autoscalingv2.MetricIdentifier{Name: s.MetricName, Selector: s.MetricSelector},
			Current: autoscalingv2.MetricValueStatus{Value: &s.CurrentValue, AverageValue: s.CurrentAverageValue},
		}
	}
	return out
}
