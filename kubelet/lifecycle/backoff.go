package lifecycle

import "time"

// The back-off of crashing containers and failing pulls, as the Kubernetes
// documentation of pod lifecycle gives it.
const (
	backoffFirst = 10 * time.Second
	backoffMax   = 5 * time.Minute
	// A container that ran for so long starts over with the first delay.
	backoffForget = 2 * backoffMax
)

// backoff is one growing delay.
type backoff struct {
	delay time.Duration
	since time.Time // when delay was last set
}

// next doubles the delay at time now and returns the entry.
func (b backoff) next(now time.Time, forget time.Duration) backoff {
	if b.delay == 0 || now.Sub(b.since) > forget {
		return backoff{delay: backoffFirst, since: now}
	}
	return backoff{delay: min(2*b.delay, backoffMax), since: now}
}

// crashUntil returns when a container that finished at finished may start
// again under b: the first restart is at once.
func (b backoff) crashUntil(finished, now time.Time) time.Time {
	if b.delay == 0 || finished.Sub(b.since) > backoffForget || now.Sub(b.since) > backoffForget {
		return finished
	}
	return finished.Add(b.delay)
}

// adopted is the back-off of a container found with attempt restarts behind
// it, started at started: a kubelet that restarts does not forgive.
func adopted(attempt int, started time.Time) backoff {
	if attempt == 0 {
		return backoff{}
	}
	d := backoffFirst
	for range min(attempt-1, 8) {
		d = min(2*d, backoffMax)
	}
	return backoff{delay: d, since: started}
}

// retry is the short back-off of what fails for reasons outside the
// container: sandboxes, volumes, configuration.
func retry(failures int) time.Duration {
	d := time.Second
	for range min(failures-1, 5) {
		d *= 2
	}
	return min(d, 30*time.Second)
}

// replaceHold is for how long the end of a container that is replaced by a
// changed one may go untold.
const replaceHold = time.Second
