package run

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
)

// Event reports what was done to obj, and about which other object (nil: none).
// Reasons that begin with Failed are warnings; the action is the reason's
// last word.
func Event(to events.EventRecorder, obj, about runtime.Object, reason, format string, args ...any) {
	kind, action := corev1.EventTypeNormal, reason
	if strings.HasPrefix(reason, "Failed") {
		kind = corev1.EventTypeWarning
	}
	for _, w := range []string{"Create", "Delete", "Update"} {
		if strings.HasSuffix(reason, w) {
			action = w
		}
	}
	if v := reflect.ValueOf(about); !v.IsValid() || (v.Kind() == reflect.Pointer && v.IsNil()) {
		about = nil
	}
	to.Eventf(obj, about, kind, reason, action, format, args...)
}
