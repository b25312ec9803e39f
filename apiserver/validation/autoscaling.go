package validation

import (
	"errors"
	"fmt"
	"slices"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The limits of autoscalers, in seconds.
const (
	maxScalePeriod   = 1800
	maxStabilization = 3600
)

// scalerCheck is what an autoscaler is held against; on updates an older one
// may have had what is refused today.
type scalerCheck struct {
	*problems

	anyTarget, noGroup  bool
	anyDescribedVersion bool
}

// HorizontalPodAutoscaler validates an autoscaler.
func HorizontalPodAutoscaler(h *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
	p := meta(&h.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	checkScaler(&p, h, nil)
	return p.list
}

// HorizontalPodAutoscalerUpdate validates a change of an autoscaler.
func HorizontalPodAutoscalerUpdate(h, old *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
	p := metaUpdate(&h.ObjectMeta, &old.ObjectMeta)
	checkScaler(&p, h, old)
	return p.list
}

// HorizontalPodAutoscalerStatusUpdate validates the controller's counts.
func HorizontalPodAutoscalerStatusUpdate(h, old *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
	p := metaUpdate(&h.ObjectMeta, &old.ObjectMeta)
	for i, c := range h.Status.Conditions {
		p.nonNegative(field.NewPath("status", "conditions").Index(i).Child("observedGeneration"), deref(c.ObservedGeneration))
	}
	p.counts(field.NewPath("status"), []count{
		{"currentReplicas", h.Status.CurrentReplicas},
		{"desiredReplicas", h.Status.DesiredReplicas},
	})
	return p.list
}

func checkScaler(p *problems, h, old *autoscalingv2.HorizontalPodAutoscaler) {
	c := &scalerCheck{problems: p}
	ref := h.Spec.ScaleTargetRef
	if old != nil {
		was := old.Spec.ScaleTargetRef
		c.anyTarget = was.APIVersion == ref.APIVersion && was.Kind == ref.Kind
		c.anyDescribedVersion = slices.ContainsFunc(old.Spec.Metrics, func(m autoscalingv2.MetricSpec) bool {
			return m.Type == autoscalingv2.ObjectMetricSourceType && m.Object != nil && versionError(m.Object.DescribedObject.APIVersion, true) != nil
		})
	}
	c.noGroup = ref.Kind == "ReplicationController"
	c.check(&h.Spec)
}

func (c *scalerCheck) check(s *autoscalingv2.HorizontalPodAutoscalerSpec) {
	path := field.NewPath("spec")
	most := path.Child("maxReplicas")
	c.nonNegative(path.Child("minReplicas"), int64(deref(s.MinReplicas)))
	if s.MaxReplicas == 0 {
		c.required(most, "")
	} else if s.MaxReplicas < 0 {
		c.invalid(most, s.MaxReplicas, "must be greater than or equal to 1")
	}
	if n := s.MinReplicas; n != nil && s.MaxReplicas < *n {
		c.invalid(most, s.MaxReplicas, "must be greater than or equal to `minReplicas`")
	}
	c.reference(path.Child("scaleTargetRef"), s.ScaleTargetRef, c.anyTarget, c.noGroup)
	elsewhere := false
	for i := range s.Metrics {
		c.metric(path.Child("metrics").Index(i), &s.Metrics[i])
		elsewhere = elsewhere || s.Metrics[i].Type == autoscalingv2.ObjectMetricSourceType || s.Metrics[i].Type == autoscalingv2.ExternalMetricSourceType
	}
	c.forbid(path.Child("metrics"), s.MinReplicas != nil && *s.MinReplicas == 0 && !elsewhere,
		"must specify at least one Object or External metric to support scaling to zero replicas")
	if s.Behavior != nil {
		c.scaling(path.Child("behavior", "scaleUp"), s.Behavior.ScaleUp)
		c.scaling(path.Child("behavior", "scaleDown"), s.Behavior.ScaleDown)
	}
}

func (c *scalerCheck) reference(path *field.Path, r autoscalingv2.CrossVersionObjectReference, anyVersion, noGroup bool) {
	c.requireFormat(path.Child("kind"), r.Kind, content.IsPathSegmentName)
	c.requireFormat(path.Child("name"), r.Name, content.IsPathSegmentName)
	if err := versionError(r.APIVersion, noGroup); err != nil && !anyVersion {
		c.invalid(path.Child("apiVersion"), r.APIVersion, err.Error())
	}
}

func versionError(version string, noGroup bool) error {
	gv, err := schema.ParseGroupVersion(version)
	if err == nil && !noGroup && gv.Group == "" {
		err = errors.New("apiVersion must specify API group")
	}
	return err
}

func (c *scalerCheck) scaling(path *field.Path, r *autoscalingv2.HPAScalingRules) {
	if r == nil {
		return
	}
	if n, at := r.StabilizationWindowSeconds, path.Child("stabilizationWindowSeconds"); n != nil && *n < 0 {
		c.invalid(at, n, "must be greater than or equal to zero")
	} else if n != nil && *n > maxStabilization {
		c.invalid(at, n, fmt.Sprintf("must be less than or equal to %v", maxStabilization))
	}
	if r.SelectPolicy != nil {
		all := []autoscalingv2.ScalingPolicySelect{
			autoscalingv2.DisabledPolicySelect, autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect,
		}
		if !slices.Contains(all, *r.SelectPolicy) {
			c.add(field.NotSupported(path.Child("selectPolicy"), r.SelectPolicy, all))
		}
	}
	policies := path.Child("policies")
	if len(r.Policies) == 0 {
		c.required(policies, "must specify at least one Policy")
	}
	for i, policy := range r.Policies {
		at := policies.Index(i)
		oneOf(c.problems, at.Child("type"), policy.Type, autoscalingv2.PercentScalingPolicy, autoscalingv2.PodsScalingPolicy)
		if policy.Value <= 0 {
			c.invalid(at.Child("value"), policy.Value, "must be greater than zero")
		}
		if policy.PeriodSeconds <= 0 {
			c.invalid(at.Child("periodSeconds"), policy.PeriodSeconds, "must be greater than zero")
		}
		if policy.PeriodSeconds > maxScalePeriod {
			c.invalid(at.Child("periodSeconds"), policy.PeriodSeconds, fmt.Sprintf("must be less than or equal to %v", maxScalePeriod))
		}
	}
	if r.Tolerance != nil {
		c.nonNegativeQuantity(path.Child("tolerance"), *r.Tolerance)
	}
}

// metric validates a metric: one source, the one that its type names. Of
// several sources only the first is looked at.
func (c *scalerCheck) metric(path *field.Path, m *autoscalingv2.MetricSpec) {
	kinds := []autoscalingv2.MetricSourceType{
		autoscalingv2.ContainerResourceMetricSourceType, autoscalingv2.ExternalMetricSourceType,
		autoscalingv2.ObjectMetricSourceType, autoscalingv2.PodsMetricSourceType, autoscalingv2.ResourceMetricSourceType,
	}
	at := path.Child("type")
	if m.Type == "" {
		c.required(at, "must specify a metric source type")
	}
	if !slices.Contains(kinds, m.Type) {
		c.add(field.NotSupported(at, m.Type, kinds), field.NotSupported(at, m.Type, kinds)) // upstream says so twice
	}
	var present []string
	wanted := ""
	for _, s := range []struct {
		name  string
		kind  autoscalingv2.MetricSourceType
		set   bool
		check func(at *field.Path)
	}{
		{"object", autoscalingv2.ObjectMetricSourceType, m.Object != nil, func(at *field.Path) { c.objectMetric(at, m.Object) }},
		{"external", autoscalingv2.ExternalMetricSourceType, m.External != nil, func(at *field.Path) { c.externalMetric(at, m.External) }},
		{"pods", autoscalingv2.PodsMetricSourceType, m.Pods != nil, func(at *field.Path) { c.podsMetric(at, m.Pods) }},
		{"resource", autoscalingv2.ResourceMetricSourceType, m.Resource != nil, func(at *field.Path) { c.resourceMetric(at, m.Resource) }},
		{"containerResource", autoscalingv2.ContainerResourceMetricSourceType, m.ContainerResource != nil, func(at *field.Path) { c.containerMetric(at, m.ContainerResource) }},
	} {
		if s.kind == m.Type {
			wanted = s.name
			if !s.set {
				c.required(path.Child(s.name), "must populate information for the given metric source")
			}
		}
		if s.set {
			if present = append(present, s.name); len(present) == 1 {
				s.check(path.Child(s.name))
			}
		}
	}
	for _, name := range present {
		c.forbid(path.Child(name), len(present) != 1 && name != wanted, "must populate the given metric source only")
	}
}

func (c *scalerCheck) objectMetric(at *field.Path, m *autoscalingv2.ObjectMetricSource) {
	c.reference(at.Child("describedObject"), m.DescribedObject, c.anyDescribedVersion, true)
	c.identifier(at, m.Metric)
	c.target(at, m.Target)
	if m.Target.Value == nil && m.Target.AverageValue == nil {
		c.required(at.Child("target", "averageValue"), "must set either a target value or averageValue")
	}
}

func (c *scalerCheck) externalMetric(at *field.Path, m *autoscalingv2.ExternalMetricSource) {
	c.identifier(at, m.Metric)
	c.target(at, m.Target)
	if m.Target.Value == nil && m.Target.AverageValue == nil {
		c.required(at.Child("target", "averageValue"), "must set either a target value for metric or a per-pod target")
	}
	c.forbid(at.Child("target", "value"), m.Target.Value != nil && m.Target.AverageValue != nil,
		"may not set both a target value for metric and a per-pod target")
}

func (c *scalerCheck) podsMetric(at *field.Path, m *autoscalingv2.PodsMetricSource) {
	c.identifier(at, m.Metric)
	c.target(at, m.Target)
	if m.Target.AverageValue == nil {
		c.required(at.Child("target", "averageValue"), "must specify a positive target averageValue")
	}
}

func (c *scalerCheck) resourceMetric(at *field.Path, m *autoscalingv2.ResourceMetricSource) {
	if m.Name == "" {
		c.required(at.Child("name"), "must specify a resource name")
	}
	c.target(at, m.Target)
	c.usage(at.Child("target"), m.Target)
}

func (c *scalerCheck) containerMetric(at *field.Path, m *autoscalingv2.ContainerResourceMetricSource) {
	if m.Name == "" {
		c.required(at.Child("name"), "must specify a resource name")
	} else {
		containerResourceName(c.problems, at.Child("name"), m.Name)
	}
	if m.Container == "" {
		c.required(at.Child("container"), "must specify a container")
	} else {
		c.problems.check(at.Child("container"), m.Container, validation.IsDNS1123Label)
	}
	c.target(at, m.Target)
	c.usage(at.Child("target"), m.Target)
}

// usage demands a target as a value or as a part of what is requested.
func (c *scalerCheck) usage(at *field.Path, t autoscalingv2.MetricTarget) {
	if t.AverageUtilization == nil && t.AverageValue == nil {
		c.required(at.Child("averageUtilization"), "must set either a target raw value or a target utilization")
	}
	c.forbid(at.Child("averageValue"), t.AverageUtilization != nil && t.AverageValue != nil,
		"may not set both a target raw value and a target utilization")
}

func (c *scalerCheck) identifier(at *field.Path, m autoscalingv2.MetricIdentifier) {
	if m.Name == "" {
		c.required(at.Child("metric", "name"), "must specify a metric name")
		return
	}
	c.problems.check(at.Child("metric", "name"), m.Name, content.IsPathSegmentName)
}

func (c *scalerCheck) target(at *field.Path, t autoscalingv2.MetricTarget) {
	at = at.Child("target")
	if t.Type == "" {
		c.required(at.Child("type"), "must specify a metric target type")
	}
	if t.Type != autoscalingv2.UtilizationMetricType && t.Type != autoscalingv2.ValueMetricType && t.Type != autoscalingv2.AverageValueMetricType {
		c.invalid(at.Child("type"), t.Type, "must be either Utilization, Value, or AverageValue")
	}
	if t.Value != nil && t.Value.Sign() != 1 {
		c.invalid(at.Child("value"), t.Value, "must be positive")
	}
	if t.AverageValue != nil && t.AverageValue.Sign() != 1 {
		c.invalid(at.Child("averageValue"), t.AverageValue, "must be positive")
	}
	if n := t.AverageUtilization; n != nil && *n < 1 {
		c.invalid(at.Child("averageUtilization"), n, "must be greater than 0")
	}
}
