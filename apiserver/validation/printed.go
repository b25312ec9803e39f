package validation

import (
	"reflect"
	"strings"
)

// printed returns v as messages print it: structs of the API under the names
// of their Go fields, because upstream prints its internal types, which have
// no JSON names. What brings its own JSON form, and the types of apimachinery,
// stay as they are.
func printed(v any) any {
	if v == nil {
		return nil
	}
	in := reflect.ValueOf(v)
	out := reflect.New(untagged(in.Type())).Elem()
	fill(out, in)
	return out.Interface()
}

func apiStruct(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && strings.HasPrefix(t.PkgPath(), "k8s.io/api/")
}

// untagged is the type t without JSON names. The types of the API that are
// printed do not contain themselves.
func untagged(t reflect.Type) reflect.Type {
	switch {
	case t.Kind() == reflect.Pointer:
		return reflect.PointerTo(untagged(t.Elem()))
	case t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8:
		return reflect.SliceOf(untagged(t.Elem()))
	case apiStruct(t):
		fields := make([]reflect.StructField, 0, t.NumField())
		for f := range t.Fields() {
			switch {
			case f.Name == "TypeMeta":
			case f.Name == "ObjectMeta" && f.Anonymous: // its fields, which have JSON names, become the parent's
				for m := range f.Type.Fields() {
					fields = append(fields, reflect.StructField{Name: m.Name, Type: m.Type, Tag: m.Tag})
				}
			case f.Anonymous: // the source of a volume and the like
				fields = append(fields, reflect.VisibleFields(untagged(f.Type))...)
			default:
				fields = append(fields, reflect.StructField{Name: f.Name, Type: untagged(f.Type)})
			}
		}
		for i := range fields {
			fields[i].Index, fields[i].Offset = nil, 0
		}
		return reflect.StructOf(fields)
	default:
		return t
	}
}

// fill copies in into out, whose type is in's without JSON names.
func fill(out, in reflect.Value) {
	switch {
	case in.Type() == out.Type():
		out.Set(in)
	case in.Kind() == reflect.Pointer && !in.IsNil():
		out.Set(reflect.New(out.Type().Elem()))
		fill(out.Elem(), in.Elem())
	case in.Kind() == reflect.Slice && !in.IsNil():
		out.Set(reflect.MakeSlice(out.Type(), in.Len(), in.Len()))
		for i := range in.Len() {
			fill(out.Index(i), in.Index(i))
		}
	case in.Kind() == reflect.Struct:
		for i := range out.NumField() {
			fill(out.Field(i), in.FieldByName(out.Type().Field(i).Name))
		}
	}
}
