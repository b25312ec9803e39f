package run

import "sync"

// crashes counts the panics of keys. A parked key gets one more try each time
// its object changes, so a user can mend what is poisonous.
type crashes struct {
	budget int

	mu   sync.Mutex // guards the field below
	seen map[Key]crash
}

type crash struct {
	count   int
	version string // of the object at the last panic
}

func newCrashes(budget int) *crashes {
	return &crashes{budget: budget, seen: map[Key]crash{}}
}

// add notes a panic at an object's version and reports whether the key is
// parked now.
func (c *crashes) add(key Key, version string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := crash{count: c.seen[key].count + 1, version: version}
	c.seen[key] = n
	return n.count >= c.budget
}

func (c *crashes) parked(key Key, version string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.seen[key]
	return ok && n.count >= c.budget && n.version == version
}

func (c *crashes) forget(key Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.seen, key)
}
