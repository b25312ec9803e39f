package kinds

import (
	"context"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skein.dev/skein/apiserver/registry"
)

// defaults, row and selects let a kind's functions take its own type. The
// registry hands a kind only objects that its New made.
func defaults[T runtime.Object](f func(T)) func(runtime.Object) {
	return func(o runtime.Object) { f(o.(T)) }
}

func row[T runtime.Object](f func(T) []any) func(runtime.Object) []any {
	return func(o runtime.Object) []any { return f(o.(T)) }
}

func selects[T runtime.Object](f func(T) fields.Set) func(runtime.Object) fields.Set {
	return func(o runtime.Object) fields.Set { return f(o.(T)) }
}

// rules are a strategy in a kind's own type. Nil means no rule.
type rules[T runtime.Object] struct {
	create         func(T)
	update         func(obj, old T)
	validate       func(T) field.ErrorList
	validateUpdate func(obj, old T) field.ErrorList
	// warn gets the zero T as old on create.
	warn         func(obj, old T) []string
	putCreates   bool
	needsVersion bool
	// keepsMeta is for statuses whose writers change no metadata.
	keepsMeta bool
	// reset are further fields that the strategy keeps (registry.Strategy.Reset).
	reset []string
}

func (r rules[T]) strategy() registry.Strategy {
	s := registry.Strategy{CreateOnUpdate: r.putCreates, NeedsVersion: r.needsVersion, Reset: r.reset}
	if r.keepsMeta {
		s.Reset = append(s.Reset, "metadata")
	}
	if r.create != nil {
		s.PrepareCreate = func(_ context.Context, o runtime.Object) { r.create(o.(T)) }
	}
	if r.update != nil {
		s.PrepareUpdate = func(_ context.Context, o, old runtime.Object) { r.update(o.(T), old.(T)) }
	}
	if r.validate != nil {
		s.Validate = func(_ context.Context, o runtime.Object) field.ErrorList { return r.validate(o.(T)) }
	}
	if r.validateUpdate != nil {
		s.ValidateUpdate = func(_ context.Context, o, old runtime.Object) field.ErrorList {
			return r.validateUpdate(o.(T), old.(T))
		}
	}
	if r.warn != nil {
		s.Warn = func(_ context.Context, o, old runtime.Object) []string {
			before, _ := old.(T) // nil on create
			return r.warn(o.(T), before)
		}
	}
	return s
}

func (r rules[T]) status() *registry.Strategy {
	s := r.strategy()
	return &s
}

// bump counts a new generation when what the user wants has changed.
func bump(obj, old *metav1.ObjectMeta, want, had any) {
	if !equality.Semantic.DeepEqual(want, had) {
		obj.Generation = old.Generation + 1
	}
}
