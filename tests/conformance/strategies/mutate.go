package strategies

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// mutator changes objects at random places in ways that rules look at.
type mutator struct {
	*rand.Rand

	words []string // strings that the samples have
}

// odd are values that rules often treat differently.
func odd() []string {
	return []string{
		"", "x", "X_y", "a.b/c", "a/b/c", "*", "-", "10.0.0.1", "fd00::1", "10.0.0.0/24", "kubernetes.io/x", "example.com/x", "/etc/x", "../x",
		"http", "0", "1", "a b", strings.Repeat("a", 64), strings.Repeat("a", 254), "Always", "Never", "None", "default", "TCP", "UDP", "true",
	}
}

// Object changes obj in n places.
func (m *mutator) Object(obj runtime.Object, n int) {
	for range n {
		var places []func()
		m.places(reflect.ValueOf(obj).Elem(), "", 0, &places)
		if len(places) > 0 {
			places[m.IntN(len(places))]()
		}
	}
}

// skipped are what the API's machinery itself writes or both sides leave to it.
func skipped(name string) bool {
	switch name {
	case "TypeMeta", "ManagedFields", "UID", "CreationTimestamp", "ResourceVersion", "SelfLink", "Generation", "DeletionTimestamp",
		"DeletionGracePeriodSeconds", "Namespace", "GenerateName":
		return true
	}
	return false
}

// places collects the changes that are possible in v.
func (m *mutator) places(v reflect.Value, path string, depth int, out *[]func()) {
	if depth > 24 {
		return
	}
	add := func(f func()) { *out = append(*out, f) }
	switch x := v.Addr().Interface().(type) {
	case *resource.Quantity:
		add(func() { *x = resource.MustParse(m.pick("0", "-1", "1", "1500m", "100m", "1Gi", "0.5")) })
		return
	case *metav1.Time:
		add(func() { *x = metav1.Time{Time: time.Unix(int64(m.IntN(3))*1e9, 0)} })
		return
	case *metav1.MicroTime:
		add(func() { *x = metav1.MicroTime{Time: time.Unix(int64(m.IntN(3))*1e9, 0)} })
		return
	case *intstr.IntOrString:
		add(func() { *x = intstr.Parse(m.pick("0", "-1", "8080", "70000", "25%", "101%", "http", "no_such")) })
		return
	case *runtime.RawExtension, *metav1.FieldsV1: // they are JSON, or are not decoded
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if v.Type().Field(i).IsExported() && !(depth < 2 && skipped(name)) {
				m.places(v.Field(i), path+"."+name, depth+1, out)
			}
		}
	case reflect.Pointer:
		m.pointer(v, path, depth, out)
	case reflect.Slice:
		m.slice(v, path, depth, out)
	case reflect.Map:
		m.mapping(v, add)
	case reflect.String:
		add(func() { v.SetString(m.word()) })
	case reflect.Bool:
		add(func() { v.SetBool(!v.Bool()) })
	case reflect.Int, reflect.Int32, reflect.Int64:
		add(func() { v.SetInt([]int64{0, -1, 1, 2, 5, 80, 3600, 65536, 1<<31 - 1}[m.IntN(9)]) })
	}
}

func (m *mutator) pointer(v reflect.Value, path string, depth int, out *[]func()) {
	if v.IsNil() {
		*out = append(*out, func() {
			v.Set(reflect.New(v.Type().Elem()))
			if m.IntN(2) == 0 {
				var inner []func()
				m.places(v.Elem(), path, depth+1, &inner)
				if len(inner) > 0 {
					inner[m.IntN(len(inner))]()
				}
			}
		})
		return
	}
	if m.IntN(3) == 0 {
		*out = append(*out, v.SetZero)
	}
	m.places(v.Elem(), path, depth+1, out)
}

func (m *mutator) slice(v reflect.Value, path string, depth int, out *[]func()) {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		*out = append(*out, func() { v.SetBytes([]byte(m.word())) })
		return
	}
	*out = append(*out, func() {
		switch n := v.Len(); {
		case n > 0 && m.IntN(3) == 0:
			v.Set(reflect.AppendSlice(reflect.MakeSlice(v.Type(), 0, n-1), v.Slice(1, n)))
		case n > 0 && m.IntN(2) == 0:
			v.Set(reflect.Append(v, v.Index(m.IntN(n))))
		default:
			e := reflect.New(v.Type().Elem())
			for range m.IntN(4) {
				var inner []func()
				m.places(e.Elem(), path, depth+1, &inner)
				if len(inner) > 0 {
					inner[m.IntN(len(inner))]()
				}
			}
			v.Set(reflect.Append(v, e.Elem()))
		}
	})
	for i := range v.Len() {
		m.places(v.Index(i), path, depth+1, out)
	}
}

func (m *mutator) mapping(v reflect.Value, add func(func())) {
	if v.Type().Key().Kind() != reflect.String {
		return
	}
	add(func() {
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
		}
		keys := v.MapKeys()
		if len(keys) > 0 && m.IntN(3) == 0 {
			v.SetMapIndex(keys[m.IntN(len(keys))], reflect.Value{})
			return
		}
		key, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem())
		key.SetString(m.word())
		var inner []func()
		m.places(e.Elem(), "", 1, &inner)
		if len(inner) > 0 {
			inner[m.IntN(len(inner))]()
		}
		v.SetMapIndex(key, e.Elem())
	})
}

func (m *mutator) pick(words ...string) string { return words[m.IntN(len(words))] }

func (m *mutator) word() string {
	if m.IntN(2) == 0 {
		return m.pick(odd()...)
	}
	return m.pick(m.words...)
}
