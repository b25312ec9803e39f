package validation

import (
	"encoding/json"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ReplicationController validates a replication controller.
func ReplicationController(r *corev1.ReplicationController) field.ErrorList {
	p := meta(&r.ObjectMeta, longName)
	controllerSpec(&p, &r.Spec, nil)
	return p.list
}

// ReplicationControllerUpdate validates a change of a replication controller.
func ReplicationControllerUpdate(r, old *corev1.ReplicationController) field.ErrorList {
	p := metaUpdate(&r.ObjectMeta, &old.ObjectMeta)
	controllerSpec(&p, &r.Spec, &old.Spec)
	return p.list
}

func controllerSpec(p *problems, s, old *corev1.ReplicationControllerSpec) {
	path := field.NewPath("spec")
	p.nonNegative(path.Child("minReadySeconds"), int64(s.MinReadySeconds))
	if len(s.Selector) == 0 {
		p.required(path.Child("selector"), "")
	}
	if s.Replicas == nil {
		p.required(path.Child("replicas"), "")
	} else {
		p.nonNegative(path.Child("replicas"), int64(*s.Replicas))
	}
	at := path.Child("template")
	if s.Template == nil {
		p.required(at, "")
		return
	}
	if selector := labels.Set(s.Selector).AsSelector(); !selector.Empty() && !selector.Matches(labels.Set(s.Template.Labels)) {
		p.invalid(at.Child("metadata", "labels"), s.Template.Labels, "`selector` does not match template `labels`")
	}
	var before *corev1.PodTemplateSpec
	if old != nil {
		before = old.Template
	}
	podTemplate(p, at, s.Template, before)
	alwaysRestarts(p, at, s.Template)
	p.forbid(at.Child("spec", "activeDeadlineSeconds"), s.Template.Spec.ActiveDeadlineSeconds != nil,
		"activeDeadlineSeconds in ReplicationController is not Supported")
}

// ReplicationControllerStatusUpdate validates a controller's counts.
func ReplicationControllerStatusUpdate(r, old *corev1.ReplicationController) field.ErrorList {
	p := metaUpdate(&r.ObjectMeta, &old.ObjectMeta)
	s, path := &r.Status, field.NewPath("status")
	p.counts(path, []count{
		{"replicas", s.Replicas},
		{"fullyLabeledReplicas", s.FullyLabeledReplicas},
		{"readyReplicas", s.ReadyReplicas},
		{"availableReplicas", s.AvailableReplicas},
	})
	p.nonNegative(path.Child("observedGeneration"), s.ObservedGeneration)
	p.within(path, s.Replicas, s.ReadyReplicas, s.AvailableReplicas, count{"fullyLabeledReplicas", s.FullyLabeledReplicas})
	return p.list
}

// PodTemplate validates a template that is stored by itself.
func PodTemplate(t *corev1.PodTemplate) field.ErrorList {
	p := meta(&t.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	podTemplate(&p, field.NewPath("template"), &t.Template, nil)
	return p.list
}

// PodTemplateUpdate validates a change of a template.
func PodTemplateUpdate(t, old *corev1.PodTemplate) field.ErrorList {
	p := metaUpdate(&t.ObjectMeta, &old.ObjectMeta)
	podTemplate(&p, field.NewPath("template"), &t.Template, &old.Template)
	return p.list
}

// ControllerRevision validates a snapshot, which is some JSON object.
func ControllerRevision(r *appsv1.ControllerRevision) field.ErrorList {
	p := revision(r)
	path := field.NewPath("data")
	var v any
	if r.Data.Raw == nil {
		p.required(path, "data is mandatory")
	} else if err := json.Unmarshal(r.Data.Raw, &v); err != nil {
		p.invalid(path, "<value omitted>", "error parsing data: "+err.Error())
	} else if v == nil {
		p.required(path, "data is mandatory")
	} else if _, ok := v.(map[string]any); !ok {
		p.required(path, "data must be a valid JSON object")
	}
	return p.list
}

func revision(r *appsv1.ControllerRevision) problems {
	p := meta(&r.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	p.nonNegative(field.NewPath("revision"), r.Revision)
	return p
}

// ControllerRevisionUpdate validates a change of a snapshot; its data stays.
func ControllerRevisionUpdate(r, old *appsv1.ControllerRevision) field.ErrorList {
	p := metaUpdate(&r.ObjectMeta, &old.ObjectMeta)
	p.add(revision(r).list...)
	p.immutable(field.NewPath("data"), r.Data, old.Data)
	return p.list
}
