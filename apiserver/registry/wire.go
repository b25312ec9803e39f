package registry

import (
	"errors"
	"reflect"
	"slices"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

// Wire is how requests and answers are encoded. Unlike the codecs alone it
// takes no text from protobuf that is not UTF-8: in JSON such an object would
// be another one, and clients in other languages could not read a list with it.
func (s *Scheme) Wire() runtime.NegotiatedSerializer {
	w := wire{CodecFactory: s.Codecs, infos: slices.Clone(s.Codecs.SupportedMediaTypes())}
	for i, info := range w.infos {
		if p, ok := info.Serializer.(*protobuf.Serializer); ok {
			w.infos[i].Serializer, w.infos[i].StrictSerializer = legible{p}, legible{p} // protobuf knows no other strictness
		}
	}
	return w
}

type wire struct {
	serializer.CodecFactory

	infos []runtime.SerializerInfo
}

// SupportedMediaTypes implements runtime.NegotiatedSerializer.
func (w wire) SupportedMediaTypes() []runtime.SerializerInfo { return w.infos }

// legible is protobuf whose text is text.
type legible struct{ *protobuf.Serializer }

// Decode implements runtime.Decoder.
func (l legible) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	obj, gvk, err := l.Serializer.Decode(data, defaults, into)
	if err == nil && !isText(reflect.ValueOf(obj)) {
		return nil, gvk, errors.New("a string is not valid UTF-8")
	}
	return obj, gvk, err
}

// isText reports whether every string below v is UTF-8.
func isText(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String:
		return utf8.ValidString(v.String())
	case reflect.Pointer, reflect.Interface:
		return v.IsNil() || isText(v.Elem())
	case reflect.Struct:
		switch v.Type() {
		case reflect.TypeFor[metav1.Time](), reflect.TypeFor[metav1.MicroTime](), reflect.TypeFor[resource.Quantity]():
			return true // parsed already
		}
		for i := range v.NumField() { //nolint:modernize // to describe each field costs more than to look at it
			if !isText(v.Field(i)) {
				return false
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return true
		}
		for i := range v.Len() {
			if !isText(v.Index(i)) {
				return false
			}
		}
	case reflect.Map:
		for k, e := range v.Seq2() {
			if !isText(k) || !isText(e) {
				return false
			}
		}
	default: // a number or a bool
	}
	return true
}
