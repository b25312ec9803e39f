package daemon

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// textSlice is a comma-separated flag of values with a textual
// form; setting it replaces what it held.
type textSlice[T fmt.Stringer] struct {
	values *[]T
	parse  func(string) (T, error)
	kind   string
}

// sliceValue is the part of pflag that a repeatable value implements.
var _ pflag.SliceValue = textSlice[fmt.Stringer]{}

func (s textSlice[T]) Type() string   { return s.kind }
func (s textSlice[T]) String() string { return strings.Join(s.GetSlice(), ",") }

func (s textSlice[T]) Set(text string) error { return s.Replace(strings.Split(text, ",")) }

func (s textSlice[T]) Append(text string) error {
	v, err := s.parse(text)
	if err != nil {
		return err
	}
	*s.values = append(*s.values, v)
	return nil
}

func (s textSlice[T]) Replace(texts []string) error {
	values := make([]T, 0, len(texts))
	for _, text := range texts {
		if text == "" {
			continue
		}
		v, err := s.parse(text)
		if err != nil {
			return err
		}
		values = append(values, v)
	}
	*s.values = values
	return nil
}

func (s textSlice[T]) GetSlice() []string {
	if s.values == nil {
		return nil
	}
	texts := make([]string, 0, len(*s.values))
	for _, v := range *s.values {
		texts = append(texts, v.String())
	}
	return texts
}
