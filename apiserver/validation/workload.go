package validation

import (
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Deployment validates a deployment.
func Deployment(d *appsv1.Deployment) field.ErrorList {
	p := meta(&d.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	deploymentSpec(&p, &d.Spec, nil)
	return p.list
}

// DeploymentUpdate validates a change of a deployment; its selector stays.
func DeploymentUpdate(d, old *appsv1.Deployment) field.ErrorList {
	p := metaUpdate(&d.ObjectMeta, &old.ObjectMeta)
	deploymentSpec(&p, &d.Spec, &old.Spec)
	p.immutable(field.NewPath("spec", "selector"), d.Spec.Selector, old.Spec.Selector)
	return p.list
}

func deploymentSpec(p *problems, s, old *appsv1.DeploymentSpec) {
	path := field.NewPath("spec")
	p.nonNegative(path.Child("replicas"), int64(deref(s.Replicas)))
	var before *corev1.PodTemplateSpec
	if old != nil {
		before = &old.Template
	}
	replicaTemplate(p, path, s.Selector, &s.Template, before)
	deploymentStrategy(p, path.Child("strategy"), &s.Strategy)
	p.nonNegative(path.Child("minReadySeconds"), int64(s.MinReadySeconds))
	p.nonNegative(path.Child("revisionHistoryLimit"), int64(deref(s.RevisionHistoryLimit)))
	if n := s.ProgressDeadlineSeconds; n != nil {
		at := path.Child("progressDeadlineSeconds")
		p.nonNegative(at, int64(*n))
		if *n <= s.MinReadySeconds {
			p.invalid(at, *n, "must be greater than minReadySeconds")
		}
	}
}

// replicaTemplate validates selector and template of what keeps replicas.
func replicaTemplate(p *problems, path *field.Path, s *metav1.LabelSelector, t, old *corev1.PodTemplateSpec) {
	at := path.Child("selector")
	if s == nil {
		p.required(at, "")
	} else {
		p.labelSelector(at, s)
		if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
			p.invalid(at, s, "empty selector is invalid for deployment")
		}
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		p.invalid(at, s, "invalid label selector")
		return
	}
	at = path.Child("template")
	if !selector.Empty() && !selector.Matches(labels.Set(t.Labels)) {
		p.invalid(at.Child("metadata", "labels"), t.Labels, "`selector` does not match template `labels`")
	}
	podTemplate(p, at, t, old)
	alwaysRestarts(p, at, t)
	if t.Spec.ActiveDeadlineSeconds != nil {
		p.forbidden(at.Child("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in ReplicaSet is not Supported")
	}
}

func alwaysRestarts(p *problems, path *field.Path, t *corev1.PodTemplateSpec) {
	oneOf(p, path.Child("spec", "restartPolicy"), t.Spec.RestartPolicy, corev1.RestartPolicyAlways)
}

func deploymentStrategy(p *problems, path *field.Path, s *appsv1.DeploymentStrategy) {
	rolling := path.Child("rollingUpdate")
	switch s.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if s.RollingUpdate != nil {
			p.forbidden(rolling, "may not be specified when strategy `type` is 'Recreate'")
		}
	case appsv1.RollingUpdateDeploymentStrategyType:
		if s.RollingUpdate == nil {
			p.required(rolling, "this should be defaulted and never be nil")
			return
		}
		unavailable, surge := deref(s.RollingUpdate.MaxUnavailable), deref(s.RollingUpdate.MaxSurge)
		at := rolling.Child("maxUnavailable")
		p.countOrPercent(at, unavailable)
		p.countOrPercent(rolling.Child("maxSurge"), surge)
		if amount(unavailable) == 0 && amount(surge) == 0 {
			p.invalid(at, unavailable, "may not be 0 when `maxSurge` is 0")
		}
		p.atMostAll(at, unavailable)
	default:
		r := deref(s.RollingUpdate)
		p.add(field.NotSupported(path, shownRoll(string(s.Type), s.RollingUpdate != nil, r.MaxUnavailable, r.MaxSurge), []string{
			string(appsv1.RecreateDeploymentStrategyType), string(appsv1.RollingUpdateDeploymentStrategyType),
		}))
	}
}

// shownRoll is an update strategy as messages print it; there its amounts
// always have a value.
func shownRoll(name string, rolls bool, unavailable, surge *intstr.IntOrString) any {
	type rolling struct{ MaxUnavailable, MaxSurge intstr.IntOrString }
	out := struct {
		Type          string
		RollingUpdate *rolling
	}{Type: name}
	if rolls {
		out.RollingUpdate = &rolling{deref(unavailable), deref(surge)}
	}
	return out
}

// countOrPercent demands a count or a percentage, not negative.
func (p *problems) countOrPercent(path *field.Path, v intstr.IntOrString) {
	switch v.Type {
	case intstr.String:
		p.invalid(path, v, validation.IsValidPercent(v.StrVal)...)
	case intstr.Int:
		p.nonNegative(path, int64(v.IntValue()))
	default:
		p.invalid(path, v, "must be an integer or percentage (e.g '5%%')")
	}
}

// percent returns the number of a percentage.
func percent(v intstr.IntOrString) (int, bool) {
	if v.Type != intstr.String || len(validation.IsValidPercent(v.StrVal)) > 0 {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSuffix(v.StrVal, "%"))
	return n, err == nil
}

func amount(v intstr.IntOrString) int {
	if n, ok := percent(v); ok {
		return n
	}
	return v.IntValue()
}

func (p *problems) atMostAll(path *field.Path, v intstr.IntOrString) {
	if n, ok := percent(v); ok && n > 100 {
		p.invalid(path, v, "must not be greater than 100%")
	}
}

// DeploymentStatusUpdate validates a deployment's counts.
func DeploymentStatusUpdate(d, old *appsv1.Deployment) field.ErrorList {
	p := metaUpdate(&d.ObjectMeta, &old.ObjectMeta)
	s, path := &d.Status, field.NewPath("status")
	p.nonNegative(path.Child("observedGeneration"), s.ObservedGeneration)
	p.counts(path, []count{
		{"replicas", s.Replicas},
		{"updatedReplicas", s.UpdatedReplicas},
		{"readyReplicas", s.ReadyReplicas},
		{"availableReplicas", s.AvailableReplicas},
		{"unavailableReplicas", s.UnavailableReplicas},
		{"terminatingReplicas", deref(s.TerminatingReplicas)},
		{"collisionCount", deref(s.CollisionCount)},
	})
	p.within(path, s.Replicas, s.ReadyReplicas, s.AvailableReplicas, count{"updatedReplicas", s.UpdatedReplicas})
	p.grows(path.Child("collisionCount"), s.CollisionCount, old.Status.CollisionCount)
	return p.list
}

type count struct {
	name string
	n    int32
}

// counts demands that none be negative.
func (p *problems) counts(path *field.Path, list []count) {
	for _, c := range list {
		p.nonNegative(path.Child(c.name), int64(c.n))
	}
}

// within demands that parts of the replicas be no more than the whole.
func (p *problems) within(path *field.Path, replicas, ready, available int32, first count) {
	const tooMany = "cannot be greater than status.replicas"
	for _, c := range []count{first, {"readyReplicas", ready}, {"availableReplicas", available}} {
		if c.n > replicas {
			p.invalid(path.Child(c.name), c.n, tooMany)
		}
	}
	if available > ready {
		p.invalid(path.Child("availableReplicas"), available, "cannot be greater than readyReplicas")
	}
}

// ReplicaSet validates a replica set.
func ReplicaSet(r *appsv1.ReplicaSet) field.ErrorList {
	p := meta(&r.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	replicaSetSpec(&p, &r.Spec, nil)
	return p.list
}

// ReplicaSetUpdate validates a change of a replica set; its selector stays.
func ReplicaSetUpdate(r, old *appsv1.ReplicaSet) field.ErrorList {
	p := metaUpdate(&r.ObjectMeta, &old.ObjectMeta)
	replicaSetSpec(&p, &r.Spec, &old.Spec)
	p.immutable(field.NewPath("spec", "selector"), r.Spec.Selector, old.Spec.Selector)
	return p.list
}

func replicaSetSpec(p *problems, s, old *appsv1.ReplicaSetSpec) {
	path := field.NewPath("spec")
	p.nonNegative(path.Child("replicas"), int64(deref(s.Replicas)))
	p.nonNegative(path.Child("minReadySeconds"), int64(s.MinReadySeconds))
	var before *corev1.PodTemplateSpec
	if old != nil {
		before = &old.Template
	}
	replicaTemplate(p, path, s.Selector, &s.Template, before)
}

// ReplicaSetStatusUpdate validates a replica set's counts.
func ReplicaSetStatusUpdate(r, old *appsv1.ReplicaSet) field.ErrorList {
	p := metaUpdate(&r.ObjectMeta, &old.ObjectMeta)
	s, path := &r.Status, field.NewPath("status")
	p.counts(path, []count{
		{"replicas", s.Replicas},
		{"fullyLabeledReplicas", s.FullyLabeledReplicas},
		{"readyReplicas", s.ReadyReplicas},
		{"availableReplicas", s.AvailableReplicas},
	})
	p.nonNegative(path.Child("observedGeneration"), s.ObservedGeneration)
	p.counts(path, []count{{"terminatingReplicas", deref(s.TerminatingReplicas)}})
	p.within(path, s.Replicas, s.ReadyReplicas, s.AvailableReplicas, count{"fullyLabeledReplicas", s.FullyLabeledReplicas})
	return p.list
}
