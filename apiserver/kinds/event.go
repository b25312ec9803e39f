package kinds

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"

	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// eventTTL is for how many seconds events are kept.
const eventTTL = 3600

// Event declares events: stored as core/v1, served as events.k8s.io/v1 too.
func Event() registry.Kind {
	strategy := registry.Strategy{
		Validate: func(ctx context.Context, obj runtime.Object) field.ErrorList {
			return validation.Event(obj.(*corev1.Event), modern(ctx))
		},
		ValidateUpdate: func(ctx context.Context, obj, old runtime.Object) field.ErrorList {
			return validation.EventUpdate(obj.(*corev1.Event), old.(*corev1.Event), modern(ctx))
		},
		CreateOnUpdate: true,
	}
	return registry.Kind{
		Resource: corev1.SchemeGroupVersion.WithResource("events"), Kind: "Event", Singular: "event",
		ShortNames: []string{"ev"}, Namespaced: true,
		New: func() runtime.Object { return &corev1.Event{} }, NewList: func() runtime.Object { return &corev1.EventList{} },
		Versions: []registry.Version{{
			Resource: eventsv1.SchemeGroupVersion.WithResource("events"),
			New:      func() runtime.Object { return &eventsv1.Event{} }, NewList: func() runtime.Object { return &eventsv1.EventList{} },
			FromHub: eventFromHub, ToHub: eventToHub, FieldLabel: eventLabel,
		}},
		Columns: eventColumns(), Row: row(eventRow), NameInRow: true,
		Select:   selects(eventFields),
		Strategy: strategy,
		TTL:      func(runtime.Object) uint64 { return eventTTL },
	}
}

func eventFields(e *corev1.Event) fields.Set {
	source := or(e.Source.Component, e.ReportingController)
	return fields.Set{
		"involvedObject.kind":            e.InvolvedObject.Kind,
		"involvedObject.namespace":       e.InvolvedObject.Namespace,
		"involvedObject.name":            e.InvolvedObject.Name,
		"involvedObject.uid":             string(e.InvolvedObject.UID),
		"involvedObject.apiVersion":      e.InvolvedObject.APIVersion,
		"involvedObject.resourceVersion": e.InvolvedObject.ResourceVersion,
		"involvedObject.fieldPath":       e.InvolvedObject.FieldPath,
		"reason":                         e.Reason,
		"reportingComponent":             e.ReportingController,
		"source":                         source,
		"type":                           e.Type,
	}
}

// eventLabel maps the fields of events.k8s.io to those of the hub, whose own
// names it does not take.
func eventLabel(label string) string {
	if rest, ok := strings.CutPrefix(label, "regarding."); ok {
		return "involvedObject." + rest
	}
	switch {
	case label == "reportingController":
		return "reportingComponent"
	case label == "reportingComponent", label == "source", strings.HasPrefix(label, "involvedObject."):
		return ""
	}
	return label
}

func eventToHub(in, hub runtime.Object) error {
	e, ok := in.(*eventsv1.Event)
	out, ok2 := hub.(*corev1.Event)
	if !ok || !ok2 {
		return fmt.Errorf("convert %T to %T: not events", in, hub)
	}
	*out = corev1.Event{
		ObjectMeta: e.ObjectMeta, InvolvedObject: e.Regarding, Reason: e.Reason, Message: e.Note,
		Source: e.DeprecatedSource, FirstTimestamp: e.DeprecatedFirstTimestamp, LastTimestamp: e.DeprecatedLastTimestamp,
		Count: e.DeprecatedCount, Type: e.Type, EventTime: e.EventTime, Action: e.Action, Related: e.Related,
		ReportingController: e.ReportingController, ReportingInstance: e.ReportingInstance,
	}
	if s := e.Series; s != nil {
		out.Series = &corev1.EventSeries{Count: s.Count, LastObservedTime: s.LastObservedTime}
	}
	return nil
}

func eventFromHub(hub, out runtime.Object) error {
	e, ok := hub.(*corev1.Event)
	o, ok2 := out.(*eventsv1.Event)
	if !ok || !ok2 {
		return fmt.Errorf("convert %T to %T: not events", hub, out)
	}
	*o = eventsv1.Event{
		ObjectMeta: e.ObjectMeta, Regarding: e.InvolvedObject, Reason: e.Reason, Note: e.Message,
		DeprecatedSource: e.Source, DeprecatedFirstTimestamp: e.FirstTimestamp, DeprecatedLastTimestamp: e.LastTimestamp,
		DeprecatedCount: e.Count, Type: e.Type, EventTime: e.EventTime, Action: e.Action, Related: e.Related,
		ReportingController: e.ReportingController, ReportingInstance: e.ReportingInstance,
	}
	if s := e.Series; s != nil {
		o.Series = &eventsv1.EventSeries{Count: s.Count, LastObservedTime: s.LastObservedTime}
	}
	return nil
}

// modern tells whether a request uses events.k8s.io, which asks for more.
func modern(ctx context.Context) bool {
	info, ok := genericapirequest.RequestInfoFrom(ctx)
	return ok && info.APIGroup == eventsv1.GroupName
}

func eventColumns() []metav1.TableColumnDefinition {
	e := corev1.Event{}
	return []metav1.TableColumnDefinition{
		str("Last Seen", describe(e, "lastTimestamp")), str("Type", describe(e, "type")), str("Reason", describe(e, "reason")),
		str("Object", describe(e, "involvedObject")), wide(str("Subobject", describe(corev1.ObjectReference{}, "fieldPath")))[0],
		wide(str("Source", describe(e, "source")))[0], str("Message", describe(e, "message")),
		wide(str("First Seen", describe(e, "firstTimestamp")))[0], wide(str("Count", describe(e, "count")))[0],
		wide(metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name", Description: describe(metav1.ObjectMeta{}, "name")})[0],
	}
}

func eventRow(e *corev1.Event) []any {
	first := age(e.FirstTimestamp)
	if e.FirstTimestamp.IsZero() {
		first = age(metav1.NewTime(e.EventTime.Time))
	}
	last, count := first, int64(e.Count)
	if e.Count == 0 {
		count = 1 // a single event of the new form
	}
	switch {
	case e.Series != nil:
		last, count = age(metav1.NewTime(e.Series.LastObservedTime.Time)), int64(e.Series.Count)
	case !e.LastTimestamp.IsZero():
		last = age(e.LastTimestamp)
	}
	object := strings.ToLower(e.InvolvedObject.Kind)
	if e.InvolvedObject.Name != "" {
		object += "/" + e.InvolvedObject.Name
	}
	source := or(e.Source.Component, e.ReportingController)
	if host := or(e.Source.Host, e.ReportingInstance); host != "" {
		source += ", " + host
	}
	return []any{
		last, e.Type, e.Reason, object, e.InvolvedObject.FieldPath, source,
		strings.TrimSpace(e.Message), first, count, e.Name,
	}
}
