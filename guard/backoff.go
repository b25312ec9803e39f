package guard

import "time"

const (
	firstDelay = 50 * time.Millisecond // a first crash should hardly be seen
	maxDelay   = 30 * time.Second
	// A process that lived this long is healthy again, and so is its budget.
	healthyAfter = time.Minute
	// crashBudget is how many crashes in a row are an accident; one more and
	// the process counts as crashing.
	crashBudget = 3
)

// backoff decides when a crashed process is started again. It is pure.
type backoff struct {
	crashes int // in a row
}

// crashed counts a crash of a process that had lived so long, and returns how
// long to wait before the next start.
func (b *backoff) crashed(lived time.Duration) time.Duration {
	if lived >= healthyAfter {
		b.crashes = 0
	}
	b.crashes++
	delay := firstDelay
	for i := 1; i < b.crashes && delay < maxDelay; i++ {
		delay *= 4
	}
	return min(delay, maxDelay)
}

// exhausted tells that the process is crashing, not just crashed.
func (b *backoff) exhausted() bool { return b.crashes > crashBudget }
