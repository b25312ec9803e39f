package fuzz_test

import (
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// change turns bytes into changes of a good object: fields are filled in,
// emptied, doubled, with words that good objects use. So inputs reach the rules
// that are behind the decoder.
type change struct {
	in    []byte
	words []string
}

// next is the next byte of the input; 0 at its end.
func (c *change) next() int {
	if len(c.in) == 0 {
		return 0
	}
	b := c.in[0]
	c.in = c.in[1:]
	return int(b)
}

func (c *change) pick(n int) int { return c.next() % n }

// words are the strings in the samples, and some that are hard to bear.
func (t *target) words() []string {
	set := map[string]bool{
		"": true, " ": true, "a\x00b": true, "é\u202e": true, "-": true, ".": true, "..": true, "a/b/c": true, "$(A)": true, "*": true,
		"::1": true, "10.0.0.0/8": true, "10.1.2.300": true, "fd00::/64": true, "1e9999": true, "-1": true, "9223372036854775808": true,
		strings.Repeat("a", 64): true, strings.Repeat("a.b-", 70): true, "0x1p-2": true, "null": true, "%s%n": true, "self.x": true,
		"object.spec.replicas > 1": true, "{.items[*]": true, "2026-01-02T03:04:05Z": true,
	}
	for _, p := range t.places {
		for _, w := range strings.FieldsFunc(string(p.sample), func(r rune) bool { return strings.ContainsRune(`"{}[],`, r) }) {
			if len(w) < 100 {
				set[strings.TrimPrefix(w, ":")] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(set))
}

func (c *change) word() string { return c.words[(c.next()<<8|c.next())%len(c.words)] }

func numbers() []int64 {
	return []int64{0, 1, 2, -1, 3, 80, 100, 65535, 65536, 1 << 30, math.MaxInt32, math.MinInt32, math.MaxInt64, math.MinInt64}
}

// at changes something below v.
func (c *change) at(v reflect.Value) {
	if v.Kind() == reflect.Interface || v.Kind() == reflect.Pointer {
		c.behind(v)
		return
	}
	if c.own(v, 3) {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		f := v.Field(c.pick(v.NumField()))
		if f.IsZero() || c.next() < 48 {
			c.fill(f, 3)
			return
		}
		c.at(f)
	case reflect.Slice:
		c.slice(v)
	case reflect.Map:
		c.entry(v)
	default:
		c.fill(v, 3)
	}
}

func (c *change) behind(v reflect.Value) {
	if v.IsNil() || c.next() < 24 {
		c.fill(v, 3)
		return
	}
	if v.Kind() == reflect.Pointer {
		c.at(v.Elem())
		return
	}
	e := reflect.New(v.Elem().Type()).Elem()
	e.Set(v.Elem())
	c.at(e)
	v.Set(e)
}

func (c *change) slice(v reflect.Value) {
	if v.Len() == 0 {
		c.fill(v, 3)
		return
	}
	i := c.pick(v.Len())
	switch c.pick(6) {
	case 0:
		v.Set(reflect.AppendSlice(v.Slice(0, i), v.Slice(i+1, v.Len())))
	case 1:
		v.Set(reflect.Append(v, v.Index(i)))
	case 2:
		e := reflect.New(v.Type().Elem()).Elem()
		c.fill(e, 3)
		v.Set(reflect.Append(v, e))
	default:
		c.at(v.Index(i))
	}
}

func (c *change) entry(v reflect.Value) {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	what := c.pick(6)
	if len(keys) == 0 || what == 0 || v.IsNil() {
		c.fill(v, 3)
		return
	}
	k := keys[c.pick(len(keys))]
	if what == 1 {
		v.SetMapIndex(k, reflect.Value{})
		return
	}
	e := reflect.New(v.Type().Elem()).Elem()
	e.Set(v.MapIndex(k))
	c.at(e)
	v.SetMapIndex(k, e)
}

// own fills types whose insides have rules of their own.
func (c *change) own(v reflect.Value, depth int) bool {
	if !v.CanAddr() || !v.CanInterface() {
		return false
	}
	scalars := []string{"1", `"x"`, "null", "[]", "1.5", "true"}
	switch p := v.Addr().Interface().(type) {
	case *metav1.Time:
		*p = metav1.Unix(int64(c.next())<<24, 0)
	case *metav1.MicroTime:
		*p = metav1.NewMicroTime(time.Unix(int64(c.next())<<24, int64(c.next())*1000))
	case *resource.Quantity:
		all := []string{"0", "1", "100m", "1Gi", "-1", "1n", "9E", "0.0000000000001", "1e3", "123456789012345678901234567890"}
		*p = resource.MustParse(all[c.pick(len(all))])
	case *runtime.RawExtension:
		p.Raw = []byte(`{"a":` + scalars[c.pick(len(scalars))] + `}`)
	case *apiextensionsv1.JSON:
		p.Raw = []byte(scalars[c.pick(len(scalars))])
	case *intstr.IntOrString:
		if *p = intstr.FromInt32(int32(numbers()[c.pick(9)])); c.next() > 128 {
			*p = intstr.FromString(c.word())
		}
	case *[]metav1.ManagedFieldsEntry, *metav1.TypeMeta:
	case *any:
		c.fillAny(v, depth)
	default:
		return false
	}
	return true
}

// fillAny gives v a JSON value.
func (c *change) fillAny(v reflect.Value, depth int) {
	var out any
	switch n := c.pick(7); {
	case n == 0:
	case n == 1:
		out = c.next()&1 == 1
	case n == 2:
		out = numbers()[c.pick(len(numbers()))]
	case n == 3:
		out = float64(c.next()) / 4
	case n == 4 && depth > 0:
		out = map[string]any{}
	case n == 5 && depth > 0:
		out = []any{}
	default:
		out = c.word()
	}
	if out != nil {
		v.Set(reflect.ValueOf(out))
		return
	}
	v.SetZero()
}

// fill gives v a value, to some depth.
func (c *change) fill(v reflect.Value, depth int) {
	if c.own(v, depth) || !v.CanSet() {
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(c.next()&1 == 1)
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Int16, reflect.Int8:
		if n := numbers()[c.pick(len(numbers()))]; !v.OverflowInt(n) {
			v.SetInt(n)
		}
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(c.next()) & 0xff)
	case reflect.Float64:
		v.SetFloat(float64(c.next()) / 4)
	case reflect.String:
		v.SetString(c.word())
	case reflect.Pointer:
		v.SetZero()
		if depth > 0 && c.next() > 16 {
			v.Set(reflect.New(v.Type().Elem()))
			c.fill(v.Elem(), depth-1)
		}
	case reflect.Struct:
		for range 1 + c.pick(3) {
			c.fill(v.Field(c.pick(v.NumField())), depth-1)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), c.pick(3), 3))
		for i := range v.Len() {
			c.fill(v.Index(i), depth-1)
		}
	case reflect.Map:
		c.fillMap(v, depth)
	default: // nothing else is in an API type
	}
}

func (c *change) fillMap(v reflect.Value, depth int) {
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	for range c.pick(3) {
		k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		c.fill(k, 0)
		c.fill(e, depth-1)
		v.SetMapIndex(k, e)
	}
}
