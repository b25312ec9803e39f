package sched

import (
	"cmp"
	"container/heap"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"skein.dev/skein/sched/decide"
)

// change is a kind of cluster event that may let a waiting pod fit.
type change int

const (
	nodeChanged change = iota // a node came or may now take more
	podGone                   // a placed pod left
	podPlaced                 // a pod was placed or its labels changed
	volumeChanged
	namespaceChanged
	changes // how many kinds there are
)

// helps reports whether a change can undo a rule's refusal.
func helps(c change, rule string) bool {
	switch c {
	case nodeChanged:
		return true
	case podGone:
		return rule == decide.RuleResources || rule == decide.RulePorts || rule == decide.RuleSpread || rule == decide.RuleInterPod
	case podPlaced, namespaceChanged:
		return rule == decide.RuleInterPod || (c == podPlaced && rule == decide.RuleSpread)
	case volumeChanged:
		return rule == decide.RuleVolumes
	default:
		return false
	}
}

// Back-off of a pod that could not be placed, as upstream has it.
const (
	backoffBase = time.Second
	backoffMax  = 10 * time.Second
	// stale is when a pod that no event woke is tried all the same.
	stale = 5 * time.Minute
)

// item is a pod that waits for a node.
type item struct {
	pod      *decide.Prepared
	added    time.Time // first seen, for fairness within a priority
	attempts int
	ready    time.Time // not before
	parked   time.Time // since when nothing fits
	rules    []string  // that refused last time
	message  string    // last told to the user
	crashes  int
	seen     [changes]uint64 // counters when it was popped
	place    place
	index    int // in its heap
}

type place int

const (
	inFlight place = iota
	inActive
	inBackoff
	inUnschedulable
)

// queue holds the pods that wait: active by priority, those in back-off by
// time, and those that nothing but a change of the cluster can help. It reads
// no clock and is not safe for concurrent use.
type queue struct {
	items   map[types.UID]*item
	parked  map[types.UID]*item // those inUnschedulable
	active  activeHeap
	backoff backoffHeap
	counts  [changes]uint64
}

func newQueue() *queue { return &queue{items: map[types.UID]*item{}, parked: map[types.UID]*item{}} }

// add makes a new or changed pod wait. A change of the pod itself may be what
// lets it fit, so it is tried again.
func (q *queue) add(p *decide.Prepared, now time.Time) {
	it, ok := q.items[p.Object.UID]
	if !ok {
		it = &item{added: now}
		q.items[p.Object.UID] = it
		it.pod = p
		q.activate(it)
		return
	}
	it.pod = p
	switch it.place {
	case inActive:
		heap.Fix(&q.active, it.index)
	case inUnschedulable:
		q.wake(it, now)
	case inBackoff, inFlight:
	}
}

func (q *queue) remove(uid types.UID) {
	it, ok := q.items[uid]
	if !ok {
		return
	}
	delete(q.items, uid)
	q.detach(it)
}

func (q *queue) detach(it *item) {
	switch it.place {
	case inActive:
		heap.Remove(&q.active, it.index)
	case inBackoff:
		heap.Remove(&q.backoff, it.index)
	case inUnschedulable:
		delete(q.parked, it.pod.Object.UID)
	case inFlight:
	}
	it.place = inFlight
}

func (q *queue) activate(it *item) {
	it.place = inActive
	heap.Push(&q.active, it)
}

// wake moves an unschedulable pod on: at once, or when its back-off ends.
func (q *queue) wake(it *item, now time.Time) {
	delete(q.parked, it.pod.Object.UID)
	if it.ready.After(now) {
		it.place = inBackoff
		heap.Push(&q.backoff, it)
		return
	}
	q.activate(it)
}

// pop returns the next pod, or nil and how long until the next one is due
// (0: only an event can tell).
func (q *queue) pop(now time.Time) (*item, time.Duration) {
	for len(q.backoff) > 0 && !q.backoff[0].ready.After(now) {
		it, _ := heap.Pop(&q.backoff).(*item)
		q.activate(it)
	}
	if len(q.active) == 0 {
		if len(q.backoff) == 0 {
			return nil, 0
		}
		return nil, q.backoff[0].ready.Sub(now)
	}
	it, _ := heap.Pop(&q.active).(*item)
	it.place = inFlight
	it.attempts++
	it.seen = q.counts
	return it, 0
}

// done forgets a pod that has its node.
func (q *queue) done(it *item) {
	if q.items[it.pod.Object.UID] == it {
		delete(q.items, it.pod.Object.UID)
	}
}

// retry puts a popped pod into back-off: what failed may work next time.
func (q *queue) retry(it *item, now time.Time) {
	if q.items[it.pod.Object.UID] != it {
		return // deleted meanwhile
	}
	it.ready = now.Add(backoff(it.attempts))
	it.place = inBackoff
	heap.Push(&q.backoff, it)
}

// refuse parks a popped pod that fits nowhere until something happens that
// helps against rules; what happened while it was decided counts.
func (q *queue) refuse(it *item, rules []string, now time.Time) {
	if q.items[it.pod.Object.UID] != it {
		return
	}
	it.rules = rules
	it.ready = now.Add(backoff(it.attempts))
	it.parked = now
	for c := range changes {
		if q.counts[c] != it.seen[c] && it.helped(c) {
			it.place = inBackoff
			heap.Push(&q.backoff, it)
			return
		}
	}
	it.place = inUnschedulable
	q.parked[it.pod.Object.UID] = it
}

func (it *item) helped(c change) bool {
	if len(it.rules) == 0 {
		return true // refused by no rule: an empty cluster, or a missing volume
	}
	for _, r := range it.rules {
		if helps(c, r) {
			return true
		}
	}
	return false
}

// happened wakes the pods that a change may help.
func (q *queue) happened(c change, now time.Time) {
	q.counts[c]++
	for _, it := range q.parked {
		if it.helped(c) {
			q.wake(it, now)
		}
	}
}

// flush wakes pods that have waited long, in case an event should have
// helped that we do not know to.
func (q *queue) flush(now time.Time) {
	for _, it := range q.parked {
		if now.Sub(it.parked) > stale {
			q.wake(it, now)
		}
	}
}

func backoff(attempts int) time.Duration {
	d := backoffBase
	for range attempts - 1 {
		if d *= 2; d >= backoffMax {
			return backoffMax
		}
	}
	return d
}

type activeHeap []*item

func (h activeHeap) Len() int { return len(h) }
func (h activeHeap) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[j].pod.Priority, h[i].pod.Priority), h[i].added.Compare(h[j].added)) < 0
}

func (h activeHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is heap.Interface's.
func (h *activeHeap) Push(x any) {
	it, _ := x.(*item)
	it.index = len(*h)
	*h = append(*h, it)
}

// Pop is heap.Interface's.
func (h *activeHeap) Pop() any {
	old := *h
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return it
}

type backoffHeap []*item

func (h backoffHeap) Len() int           { return len(h) }
func (h backoffHeap) Less(i, j int) bool { return h[i].ready.Before(h[j].ready) }
func (h backoffHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is heap.Interface's.
func (h *backoffHeap) Push(x any) { (*activeHeap)(h).Push(x) }

// Pop is heap.Interface's.
func (h *backoffHeap) Pop() any { return (*activeHeap)(h).Pop() }
