package resourcequota

import (
	"testing"
	"testing/synctest"
	"time"

	"skein.dev/skein/controllers/run"
)

// What has come lets figures rise, at most once a moment; only what has gone,
// or time, lets them fall.
func TestFiguresFallOnlyWhenSomethingMayHaveGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := run.Key{Namespace: "app", Name: "q"}
		d := due{keys: map[run.Key]counted{}}
		step := func(rule string, want count, wantWait time.Duration) {
			t.Helper()
			if got, wait := d.begin(key, time.Now(), recount); got != want || wait != wantWait {
				t.Errorf("%s: got %d after %v, want %d after %v", rule, got, wait, want, wantWait)
			}
		}
		step("first", whole, 0)
		step("something came at once", later, between)
		time.Sleep(between / 4)
		step("and again", later, between*3/4)
		time.Sleep(between)
		step("something came later", raise, 0)
		step("another in the same moment", later, between)
		d.lowered([]run.Key{key})
		step("something went", whole, 0)
		time.Sleep(between)
		step("after it something came", raise, 0)
		time.Sleep(recount - between)
		step("long ago", whole, 0)
		d.reset()
		step("another peer has led", whole, 0)
	})
}
