package validation

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// StatefulSet validates a stateful set, whose name becomes part of host names.
func StatefulSet(s *appsv1.StatefulSet) field.ErrorList {
	p := meta(&s.ObjectMeta, apimachinery.NameIsDNSLabel)
	statefulSetSpec(&p, &s.Spec, nil)
	return p.list
}

// StatefulSetUpdate validates a change of a stateful set.
func StatefulSetUpdate(s, old *appsv1.StatefulSet) field.ErrorList {
	p := metaUpdate(&s.ObjectMeta, &old.ObjectMeta)
	statefulSetSpec(&p, &s.Spec, &old.Spec)
	path := field.NewPath("spec")
	p.immutable(path.Child("selector"), s.Spec.Selector, old.Spec.Selector)
	p.immutable(path.Child("volumeClaimTemplates"), s.Spec.VolumeClaimTemplates, old.Spec.VolumeClaimTemplates)
	p.immutable(path.Child("serviceName"), s.Spec.ServiceName, old.Spec.ServiceName)
	p.immutable(path.Child("podManagementPolicy"), s.Spec.PodManagementPolicy, old.Spec.PodManagementPolicy)
	return p.list
}

func statefulSetSpec(p *problems, s, old *appsv1.StatefulSetSpec) {
	path := field.NewPath("spec")
	switch s.PodManagementPolicy {
	case "":
		p.required(path.Child("podManagementPolicy"), "")
	case appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement:
	default:
		p.invalid(path.Child("podManagementPolicy"), s.PodManagementPolicy, "must be 'OrderedReady' or 'Parallel'")
	}
	statefulSetStrategy(p, path.Child("updateStrategy"), &s.UpdateStrategy)
	if r := s.PersistentVolumeClaimRetentionPolicy; r != nil {
		at := path.Child("persistentVolumeClaimRetentionPolicy")
		const retain, remove = appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType
		oneOf(p, at.Child("whenDeleted"), r.WhenDeleted, retain, remove)
		oneOf(p, at.Child("whenScaled"), r.WhenScaled, retain, remove)
	}
	if old == nil {
		for i := range s.VolumeClaimTemplates {
			claimSpec(p, path.Child("volumeClaimTemplates").Index(i).Child("spec"), &s.VolumeClaimTemplates[i].Spec, false)
		}
	}
	p.nonNegative(path.Child("replicas"), int64(deref(s.Replicas)))
	p.nonNegative(path.Child("minReadySeconds"), int64(s.MinReadySeconds))
	if s.Ordinals != nil {
		p.nonNegative(path.Child("ordinals.start"), int64(s.Ordinals.Start))
	}
	if s.ServiceName != "" && old == nil {
		p.check(path.Child("serviceName"), s.ServiceName, validation.IsDNS1123Label)
	}
	at := path.Child("selector")
	if s.Selector == nil {
		p.required(at, "")
	} else {
		p.labelSelector(at, s.Selector)
		if len(s.Selector.MatchLabels)+len(s.Selector.MatchExpressions) == 0 {
			p.invalid(at, s.Selector, "empty selector is invalid for statefulset")
		}
	}
	if selector, err := metav1.LabelSelectorAsSelector(s.Selector); err != nil {
		p.invalid(at, s.Selector, "")
	} else {
		if !selector.Empty() && !selector.Matches(labels.Set(s.Template.Labels)) {
			p.invalid(path.Child("template", "metadata", "labels"), s.Template.Labels, "`selector` does not match template `labels`")
		}
		var before *corev1.PodTemplateSpec
		if old != nil {
			before = &old.Template
		}
		podTemplate(p, path.Child("template"), withClaims(s), before)
	}
	alwaysRestarts(p, path.Child("template"), &s.Template)
	p.forbid(path.Child("template", "spec", "activeDeadlineSeconds"), s.Template.Spec.ActiveDeadlineSeconds != nil,
		"activeDeadlineSeconds in StatefulSet is not Supported")
}

// withClaims is the template as the controller completes it: with its claims
// as volumes, and without the names that the controller gives.
func withClaims(s *appsv1.StatefulSetSpec) *corev1.PodTemplateSpec {
	t := s.Template.DeepCopy()
	t.Spec.Subdomain, t.Spec.Hostname = "", ""
	own := map[string]bool{}
	var volumes []corev1.Volume
	for i := range s.VolumeClaimTemplates {
		name := s.VolumeClaimTemplates[i].Name
		if own[name] {
			continue
		}
		own[name] = true
		volumes = append(volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name},
		}})
	}
	for _, v := range t.Spec.Volumes {
		if !own[v.Name] {
			volumes = append(volumes, v)
		}
	}
	t.Spec.Volumes = volumes
	return t
}

func statefulSetStrategy(p *problems, path *field.Path, u *appsv1.StatefulSetUpdateStrategy) {
	rolling := path.Child("rollingUpdate")
	switch u.Type {
	case "":
		p.required(path, "")
	case appsv1.OnDeleteStatefulSetStrategyType:
		if u.RollingUpdate != nil {
			p.invalid(rolling, printed(u.RollingUpdate), "only allowed for updateStrategy 'RollingUpdate'")
		}
	case appsv1.RollingUpdateStatefulSetStrategyType:
		if u.RollingUpdate == nil {
			return
		}
		p.nonNegative(rolling.Child("partition"), int64(deref(u.RollingUpdate.Partition)))
		if n := u.RollingUpdate.MaxUnavailable; n != nil {
			at := rolling.Child("maxUnavailable")
			p.countOrPercent(at, *n)
			if amount(*n) == 0 {
				p.invalid(at, *n, "cannot be 0")
			}
			p.atMostAll(at, *n)
		}
	default:
		p.invalid(path, printed(*u), "must be 'RollingUpdate' or 'OnDelete'")
	}
}

// StatefulSetStatusUpdate validates a stateful set's counts.
func StatefulSetStatusUpdate(s, old *appsv1.StatefulSet) field.ErrorList {
	p := problems{}
	st, path := &s.Status, field.NewPath("status")
	p.counts(path, []count{
		{"replicas", st.Replicas},
		{"readyReplicas", st.ReadyReplicas},
		{"currentReplicas", st.CurrentReplicas},
		{"updatedReplicas", st.UpdatedReplicas},
		{"availableReplicas", st.AvailableReplicas},
	})
	p.nonNegative(path.Child("observedGeneration"), st.ObservedGeneration)
	p.counts(path, []count{{"collisionCount", deref(st.CollisionCount)}})
	for _, c := range []count{
		{"readyReplicas", st.ReadyReplicas},
		{"currentReplicas", st.CurrentReplicas},
		{"updatedReplicas", st.UpdatedReplicas},
		{"availableReplicas", st.AvailableReplicas},
	} {
		if c.n > st.Replicas {
			p.invalid(path.Child(c.name), c.n, "cannot be greater than status.replicas")
		}
	}
	if st.AvailableReplicas > st.ReadyReplicas {
		p.invalid(path.Child("availableReplicas"), st.AvailableReplicas, "cannot be greater than status.readyReplicas")
	}
	p.add(metaUpdate(&s.ObjectMeta, &old.ObjectMeta).list...)
	p.grows(path.Child("collisionCount"), st.CollisionCount, old.Status.CollisionCount)
	return p.list
}

// grows is the rule of counters: none may go back, or be forgotten.
func (p *problems) grows(path *field.Path, now, before *int32) {
	if before != nil && (now == nil || *now < *before) {
		p.invalid(path, deref(now), "cannot be decremented")
	}
}

// DaemonSet validates a daemon set.
func DaemonSet(d *appsv1.DaemonSet) field.ErrorList {
	p := meta(&d.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	daemonSetSpec(&p, &d.Spec, nil)
	return p.list
}

// DaemonSetUpdate validates a change of a daemon set; its selector stays.
func DaemonSetUpdate(d, old *appsv1.DaemonSet) field.ErrorList {
	p := metaUpdate(&d.ObjectMeta, &old.ObjectMeta)
	p.immutable(field.NewPath("spec", "selector"), d.Spec.Selector, old.Spec.Selector)
	daemonSetSpec(&p, &d.Spec, &old.Spec)
	return p.list
}

func daemonSetSpec(p *problems, s, old *appsv1.DaemonSetSpec) {
	path := field.NewPath("spec")
	p.labelSelector(path.Child("selector"), s.Selector)
	if selector, err := metav1.LabelSelectorAsSelector(s.Selector); err == nil && !selector.Matches(labels.Set(s.Template.Labels)) {
		p.invalid(path.Child("template", "metadata", "labels"), s.Template.Labels, "`selector` does not match template `labels`")
	}
	if s.Selector != nil && len(s.Selector.MatchLabels)+len(s.Selector.MatchExpressions) == 0 {
		p.invalid(path.Child("selector"), s.Selector, "empty selector is invalid for daemonset")
	}
	var before *corev1.PodTemplateSpec
	if old != nil {
		before = &old.Template
	}
	podTemplate(p, path.Child("template"), &s.Template, before)
	alwaysRestarts(p, path.Child("template"), &s.Template)
	p.forbid(path.Child("template", "spec", "activeDeadlineSeconds"), s.Template.Spec.ActiveDeadlineSeconds != nil,
		"activeDeadlineSeconds in DaemonSet is not Supported")
	p.nonNegative(path.Child("minReadySeconds"), int64(s.MinReadySeconds))
	daemonSetStrategy(p, path.Child("updateStrategy"), &s.UpdateStrategy)
	p.nonNegative(path.Child("revisionHistoryLimit"), int64(deref(s.RevisionHistoryLimit)))
}

func daemonSetStrategy(p *problems, path *field.Path, u *appsv1.DaemonSetUpdateStrategy) {
	r := deref(u.RollingUpdate)
	switch u.Type {
	case appsv1.OnDeleteDaemonSetStrategyType:
	case appsv1.RollingUpdateDaemonSetStrategyType:
		path = path.Child("rollingUpdate")
		if u.RollingUpdate == nil {
			p.required(path, "")
			return
		}
		unavailable, surge := deref(r.MaxUnavailable), deref(r.MaxSurge)
		p.countOrPercent(path.Child("maxUnavailable"), unavailable)
		p.countOrPercent(path.Child("maxSurge"), surge)
		p.atMostAll(path.Child("maxUnavailable"), unavailable)
		p.atMostAll(path.Child("maxSurge"), surge)
		switch away, more := amount(unavailable) != 0, amount(surge) != 0; {
		case away && more:
			p.invalid(path.Child("maxSurge"), surge, "may not be set when maxUnavailable is non-zero")
		case !away && !more:
			p.required(path.Child("maxUnavailable"), "cannot be 0 when maxSurge is 0")
		}
	default:
		p.add(field.NotSupported(path, shownRoll(string(u.Type), u.RollingUpdate != nil, r.MaxUnavailable, r.MaxSurge), []appsv1.DaemonSetUpdateStrategyType{
			appsv1.RollingUpdateDaemonSetStrategyType, appsv1.OnDeleteDaemonSetStrategyType,
		}))
	}
}

// DaemonSetStatusUpdate validates a daemon set's counts.
func DaemonSetStatusUpdate(d, old *appsv1.DaemonSet) field.ErrorList {
	p := metaUpdate(&d.ObjectMeta, &old.ObjectMeta)
	s, path := &d.Status, field.NewPath("status")
	p.counts(path, []count{
		{"currentNumberScheduled", s.CurrentNumberScheduled},
		{"numberMisscheduled", s.NumberMisscheduled},
		{"desiredNumberScheduled", s.DesiredNumberScheduled},
		{"numberReady", s.NumberReady},
	})
	p.nonNegative(path.Child("observedGeneration"), s.ObservedGeneration)
	p.counts(path, []count{
		{"updatedNumberScheduled", s.UpdatedNumberScheduled},
		{"numberAvailable", s.NumberAvailable},
		{"numberUnavailable", s.NumberUnavailable},
		{"collisionCount", deref(s.CollisionCount)},
	})
	p.grows(path.Child("collisionCount"), s.CollisionCount, old.Status.CollisionCount)
	return p.list
}
