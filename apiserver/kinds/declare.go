package kinds

import (
	"reflect"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skein.dev/skein/apiserver/registry"
)

// pointer is a pointer to a struct of the API.
type pointer[T any] interface {
	*T
	runtime.Object
}

// declare names a cluster-wide kind after its Go types.
func declare[T, L any, P pointer[T], Q pointer[L]](gv schema.GroupVersion, plural string, shortNames ...string) registry.Kind {
	kind := reflect.TypeFor[T]().Name()
	return registry.Kind{
		Resource: gv.WithResource(plural), Kind: kind, Singular: strings.ToLower(kind), ShortNames: shortNames,
		New: func() runtime.Object { return P(new(T)) }, NewList: func() runtime.Object { return Q(new(L)) },
	}
}

// namespaced is declare for kinds that live in namespaces.
func namespaced[T, L any, P pointer[T], Q pointer[L]](gv schema.GroupVersion, plural string, shortNames ...string) registry.Kind {
	k := declare[T, L, P, Q](gv, plural, shortNames...)
	k.Namespaced = true
	return k
}

// version declares a further served version of a kind.
func version[T, L any, P pointer[T], Q pointer[L]](gv schema.GroupVersion, plural string) registry.Version {
	return registry.Version{
		Resource: gv.WithResource(plural),
		New:      func() runtime.Object { return P(new(T)) }, NewList: func() runtime.Object { return Q(new(L)) },
	}
}

// object is what every kind of the API can do.
type object interface {
	runtime.Object
	metav1.Object
}

// part is a field of an object, which the kind is known to have.
func part(o runtime.Object, name string) reflect.Value {
	return reflect.ValueOf(o).Elem().FieldByName(name)
}

// divide is the strategy of kinds with a spec that users write and a status
// that controllers write through its subresource: neither writes the other's
// part. With counted, changes of the spec count generations. The rules' own
// functions run after the parts are divided.
func divide[T object](k *registry.Kind, counted bool, spec, status rules[T]) {
	create, update, change := spec.create, spec.update, status.update
	spec.create = func(o T) {
		part(o, "Status").SetZero()
		if counted {
			o.SetGeneration(1)
		}
		if create != nil {
			create(o)
		}
	}
	spec.update = func(o, old T) {
		part(o, "Status").Set(part(old, "Status"))
		if update != nil {
			update(o, old)
		}
		if counted {
			recount(o, old, "Spec")
		}
	}
	status.update = func(o, old T) {
		part(o, "Spec").Set(part(old, "Spec"))
		if status.keepsMeta {
			metav1.ResetObjectMetaForStatus(o, old)
		}
		if change != nil {
			change(o, old)
		}
	}
	k.Strategy, k.Status = spec.strategy(), status.status()
}

// count is the strategy of kinds without a status whose generations count the
// changes of some fields.
func count[T object](k *registry.Kind, r rules[T], names ...string) {
	create, update := r.create, r.update
	r.create = func(o T) {
		o.SetGeneration(1)
		if create != nil {
			create(o)
		}
	}
	r.update = func(o, old T) {
		if update != nil {
			update(o, old)
		}
		recount(o, old, names...)
	}
	k.Strategy = r.strategy()
}

// recount raises the generation if one of the fields has changed.
func recount(o, old object, names ...string) {
	var want, had []any
	for _, name := range names {
		want, had = append(want, part(o, name).Interface()), append(had, part(old, name).Interface())
	}
	m := metav1.ObjectMeta{Generation: o.GetGeneration()}
	bump(&m, &metav1.ObjectMeta{Generation: old.GetGeneration()}, want, had)
	o.SetGeneration(m.Generation)
}
