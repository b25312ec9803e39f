package lb

import (
	"slices"
	"sync"
)

// Feed passes services that are not of the API, the host ports of a machine's
// pods, from who knows them to who writes them into the kernel. Its zero value
// knows nothing yet and is ready.
type Feed struct {
	mu       sync.Mutex // guards the fields below
	known    bool
	services []Service
	changed  chan struct{}
}

// Set replaces the services. Feed keeps the slice: the caller no longer writes
// to it. Setting the same again wakes nobody.
func (f *Feed) Set(services []Service) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known && slices.EqualFunc(f.services, services, Service.Equal) {
		return
	}
	f.known, f.services = true, services
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// Services returns what was set last, read-only. Not known means that nothing
// was: there may be services that nobody has told of yet.
func (f *Feed) Services() (services []Service, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.services, f.known
}

// Changed returns a channel that is closed at the next change after the call;
// take it before Services, so that nothing is missed.
func (f *Feed) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.changed
}
