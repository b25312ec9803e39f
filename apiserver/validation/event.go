package validation

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxEventText   = 128
	maxEventNote   = 1024
	otherNamespace = "does not match event.namespace"
	mustBeUnset    = "needs to be unset"
)

// Event validates a new event. Those that come through events.k8s.io/v1 are
// modern and are held to stricter rules.
func Event(e *corev1.Event, modern bool) field.ErrorList {
	p := &problems{}
	anyEvent(p, e, modern)
	if !modern {
		return p.list
	}
	p.add(Meta(&e.ObjectMeta, true, apimachinery.NameIsDNSSubdomain)...)
	eventSeries(p, e.Series)
	if e.EventTime.IsZero() {
		p.required(field.NewPath("eventTime"), "")
	}
	if e.Type != corev1.EventTypeNormal && e.Type != corev1.EventTypeWarning {
		p.invalid(field.NewPath("type"), "", fmt.Sprintf("has invalid value: %v", e.Type))
	}
	for _, deprecated := range []struct {
		name string
		set  bool
	}{
		{"firstTimestamp", !e.FirstTimestamp.IsZero()},
		{"lastTimestamp", !e.LastTimestamp.IsZero()},
		{"count", e.Count != 0},
		{"source", e.Source != (corev1.EventSource{})},
	} {
		if deprecated.set {
			p.invalid(field.NewPath(deprecated.name), "", mustBeUnset)
		}
	}
	return p.list
}

// EventUpdate validates a change of an event: a modern one only goes on with
// its series.
func EventUpdate(e, old *corev1.Event, modern bool) field.ErrorList {
	p := &problems{}
	anyEvent(p, e, modern)
	if !modern {
		return p.list
	}
	p.add(MetaUpdate(&e.ObjectMeta, &old.ObjectMeta)...)
	if !equality.Semantic.DeepEqual(e.Series, old.Series) {
		eventSeries(p, e.Series)
	}
	same := func(name string, now, before any) { p.immutable(field.NewPath(name), now, before) }
	same("involvedObject", e.InvolvedObject, old.InvolvedObject)
	same("reason", e.Reason, old.Reason)
	same("message", e.Message, old.Message)
	same("source", e.Source, old.Source)
	same("firstTimestamp", e.FirstTimestamp, old.FirstTimestamp)
	same("lastTimestamp", e.LastTimestamp, old.LastTimestamp)
	same("count", e.Count, old.Count)
	same("type", e.Type, old.Type)
	if !e.EventTime.Truncate(time.Microsecond).Equal(old.EventTime.Truncate(time.Microsecond)) { // clients lose what is finer
		same("eventTime", e.EventTime, old.EventTime)
	}
	same("action", e.Action, old.Action)
	same("related", e.Related, old.Related)
	same("reportingController", e.ReportingController, old.ReportingController)
	same("reportingInstance", e.ReportingInstance, old.ReportingInstance)
	return p.list
}

func eventSeries(p *problems, s *corev1.EventSeries) {
	if s == nil {
		return
	}
	if s.Count < 2 {
		p.invalid(field.NewPath("series.count"), "", "should be at least 2")
	}
	if s.LastObservedTime.IsZero() {
		p.required(field.NewPath("series.lastObservedTime"), "")
	}
}

// anyEvent are the rules of all events. What has an event time must say who
// reports what.
func anyEvent(p *problems, e *corev1.Event, modern bool) {
	namespace, isNew := e.InvolvedObject.Namespace, !e.EventTime.IsZero()
	var fits bool
	switch {
	case namespace == "" && isNew:
		fits = e.Namespace == metav1.NamespaceDefault || e.Namespace == metav1.NamespaceSystem
	case namespace == "":
		fits = e.Namespace == metav1.NamespaceNone || e.Namespace == metav1.NamespaceDefault
	default:
		fits = isNew || namespace == e.Namespace
	}
	if !fits {
		p.invalid(field.NewPath("involvedObject", "namespace"), namespace, otherNamespace)
	}
	if !isNew {
		return
	}
	controller := field.NewPath("reportingComponent") // the old name of the field
	if modern {
		controller = field.NewPath("reportingController")
	}
	if e.ReportingController == "" {
		p.required(controller, "")
	}
	p.check(controller, e.ReportingController, validation.IsQualifiedName)
	eventText(p, "reportingInstance", e.ReportingInstance)
	eventText(p, "action", e.Action)
	eventText(p, "reason", e.Reason)
	if len(e.Message) > maxEventNote {
		p.invalid(field.NewPath("message"), "", fmt.Sprintf("can have at most %v characters", maxEventNote))
	}
}

func eventText(p *problems, name, value string) {
	path := field.NewPath(name)
	if value == "" {
		p.required(path, "")
	}
	if len(value) > maxEventText {
		p.invalid(path, "", fmt.Sprintf("can have at most %v characters", maxEventText))
	}
}
