package daemonset

import (
	"cmp"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"skein.dev/skein/controllers/pods"
)

// Plan is what one reconcile does.
type Plan struct {
	Create []string // nodes that get a pod
	Delete []*corev1.Pod
	Status appsv1.DaemonSetStatus
	After  time.Duration // a pod becomes available then; 0: none
}

// seat is one node and the set's pods there.
type seat struct {
	name        string
	start, stay bool
	here        []*corev1.Pod // all that hold the node
	live        []*corev1.Pod // neither ended nor being deleted, oldest first
	fresh, old  *corev1.Pod   // the oldest of live by the present and by another template
}

// decider is the work of one Decide.
type decider struct {
	ds       *appsv1.DaemonSet
	hash     string
	now      time.Time
	minReady time.Duration
	seats    []*seat
	plan     Plan
	doomed   map[*corev1.Pod]bool
}

// Decide plans the next step of ds, whose present template has hash.
func Decide(ds *appsv1.DaemonSet, hash string, nodes []*corev1.Node, mine []*corev1.Pod, now time.Time) Plan {
	d := &decider{
		ds: ds, hash: hash, now: now, minReady: time.Duration(ds.Spec.MinReadySeconds) * time.Second, doomed: map[*corev1.Pod]bool{},
		plan: Plan{Status: appsv1.DaemonSetStatus{
			ObservedGeneration: ds.Generation, CollisionCount: ds.Status.CollisionCount, Conditions: ds.Status.Conditions,
		}},
	}
	byNode := map[string][]*corev1.Pod{}
	for _, p := range mine {
		if p.DeletionTimestamp == nil || !pods.Finished(p) { // else its node is free again
			byNode[target(p)] = append(byNode[target(p)], p)
		}
	}
	for _, n := range nodes {
		d.seats = append(d.seats, d.sit(n, byNode[n.Name]))
		delete(byNode, n.Name)
	}
	for _, s := range d.seats {
		d.count(s)
		d.manage(s)
	}
	for _, gone := range byNode { // pods of nodes that no longer exist
		d.drop(gone...)
	}
	d.plan.Status.NumberUnavailable = d.plan.Status.DesiredNumberScheduled - d.plan.Status.NumberAvailable
	d.roll()
	slices.SortFunc(d.plan.Delete, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(d.plan.Create)
	return d.plan
}

func (d *decider) sit(n *corev1.Node, here []*corev1.Pod) *seat {
	s := &seat{name: n.Name, here: here}
	s.start, s.stay = Suits(d.ds, n)
	slices.SortFunc(here, func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
	for _, p := range here {
		if !pods.Active(p) {
			continue
		}
		s.live = append(s.live, p)
		switch {
		case d.current(p) && s.fresh == nil:
			s.fresh = p
		case !d.current(p) && s.old == nil:
			s.old = p
		}
	}
	return s
}

func (d *decider) current(p *corev1.Pod) bool {
	return p.Labels[appsv1.ControllerRevisionHashLabelKey] == d.hash
}

func (d *decider) available(p *corev1.Pod) bool {
	ok, wait := pods.Available(p, d.minReady, d.now)
	d.again(wait)
	return ok
}

// count adds a node to the status.
func (d *decider) count(s *seat) {
	st := &d.plan.Status
	if !s.start {
		if len(s.here) > 0 {
			st.NumberMisscheduled++
		}
		return
	}
	st.DesiredNumberScheduled++
	if len(s.here) == 0 {
		return
	}
	st.CurrentNumberScheduled++
	p := s.here[0]
	if pods.Ready(p) {
		st.NumberReady++
		if d.available(p) {
			st.NumberAvailable++
		}
	}
	if d.current(p) {
		st.UpdatedNumberScheduled++
	}
}

// failedPause is the least time between a pod's creation and its replacement
// after it failed, so that a node which refuses it is not flooded.
const failedPause = 10 * time.Second

// manage gives the node its pod and takes away what it should not have.
func (d *decider) manage(s *seat) {
	if !s.stay {
		d.drop(s.here...)
		return
	}
	if s.start && len(s.here) == 0 {
		d.plan.Create = append(d.plan.Create, s.name)
		return
	}
	for _, p := range s.here {
		if !pods.Finished(p) || p.DeletionTimestamp != nil {
			continue
		}
		if wait := failedPause - d.now.Sub(p.CreationTimestamp.Time); wait > 0 {
			d.again(wait)
			continue
		}
		d.drop(p)
	}
	if d.surge() == 0 {
		if len(s.live) > 1 {
			d.drop(s.live[1:]...)
		}
		return
	}
	if len(s.live) == 0 && s.start { // one that ends does not hold the node: two may be there
		d.plan.Create = append(d.plan.Create, s.name)
		return
	}
	for _, p := range s.live {
		if p != s.fresh && p != s.old {
			d.drop(p)
		}
	}
	if s.fresh != nil && s.old != nil && (!pods.Ready(s.old) || d.available(s.fresh)) {
		d.drop(s.old)
	}
}

// drop gives up pods that are not being deleted yet, each once.
func (d *decider) drop(all ...*corev1.Pod) {
	for _, p := range all {
		if p.DeletionTimestamp == nil && !d.doomed[p] {
			d.doomed[p] = true
			d.plan.Delete = append(d.plan.Delete, p)
		}
	}
}

// again asks to be called after wait, if nothing asked for earlier.
func (d *decider) again(wait time.Duration) {
	if wait > 0 && (d.plan.After == 0 || wait < d.plan.After) {
		d.plan.After = wait
	}
}
