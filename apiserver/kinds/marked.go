package kinds

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// marked returns the names of the objects that have one of the annotations.
func marked(keys ...string) func([]runtime.Object) map[string]bool {
	return func(objs []runtime.Object) map[string]bool {
		names := map[string]bool{}
		eachMarked(objs, keys, func(m metav1.Object) { names[m.GetName()] = true })
		return names
	}
}

// effective is marked for kinds of which only one object can be the default:
// the newest, and of those the first by name.
func effective(keys ...string) func([]runtime.Object) map[string]bool {
	return func(objs []runtime.Object) map[string]bool {
		var newest metav1.Object
		eachMarked(objs, keys, func(m metav1.Object) {
			if newest == nil || newer(m, newest) {
				newest = m
			}
		})
		if newest == nil {
			return nil
		}
		return map[string]bool{newest.GetName(): true}
	}
}

func newer(a, b metav1.Object) bool {
	x, y := a.GetCreationTimestamp(), b.GetCreationTimestamp()
	if x.Unix() == y.Unix() {
		return a.GetName() < b.GetName()
	}
	return x.Unix() > y.Unix()
}

func eachMarked(objs []runtime.Object, keys []string, visit func(metav1.Object)) {
	for _, obj := range objs {
		m, err := meta.Accessor(obj)
		if err != nil {
			continue
		}
		for _, key := range keys {
			if m.GetAnnotations()[key] == "true" {
				visit(m)
				break
			}
		}
	}
}
