package role_test

import (
	"testing"

	"skein.dev/skein/api/role"
)

// FuzzFence reads the header that carries a fence: what is accepted is
// written as the same fence.
func FuzzFence(f *testing.F) {
	for _, s := range []string{"scheduler=7", "=", "a=b=1", "x=18446744073709551616", "x=-1", "x=+1", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		fence, err := role.Parse(s)
		if err != nil {
			return
		}
		if again, err := role.Parse(fence.String()); err != nil || again != fence {
			t.Fatalf("%q: %+v, again %+v, %v", s, fence, again, err)
		}
	})
}
