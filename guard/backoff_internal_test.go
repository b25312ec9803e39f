package guard

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCrashesAreRetriedSoonThenSeldom(t *testing.T) {
	var b backoff
	var got []time.Duration
	for range 8 {
		got = append(got, b.crashed(0))
	}
	want := []time.Duration{50e6, 200e6, 800e6, 3200e6, 12800e6, maxDelay, maxDelay, maxDelay}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("delays (-want +got):\n%s", d)
	}
	if !b.exhausted() {
		t.Error("8 crashes in a row are within the budget")
	}
	if got := b.crashed(healthyAfter); got != firstDelay || b.exhausted() {
		t.Errorf("after a healthy life: got delay %v, exhausted %t; want a new budget", got, b.exhausted())
	}
}
