package statefulset

import (
	"cmp"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"skein.dev/skein/controllers/pods"
)

// Revision is a pod template and its name in the history.
type Revision struct {
	Name     string
	Template *corev1.PodTemplateSpec
}

// Input is what a decision is made on.
type Input struct {
	Set *appsv1.StatefulSet
	// Current is the revision the set is leaving, Update the one it goes to;
	// equal when no update is under way.
	Current, Update Revision
	Pods            []*corev1.Pod // the set's own
	// Claim returns the claim of a name, or nil.
	Claim func(name string) *corev1.PersistentVolumeClaim
	Now   time.Time
}

// Plan is what one reconcile does: claims first, then pods.
type Plan struct {
	Claims []*corev1.PersistentVolumeClaim // to be made
	Own    []*corev1.PersistentVolumeClaim // to be written for their owners
	Create []*corev1.Pod
	Repair []*corev1.Pod // to be written: their identity was lost
	Delete []*corev1.Pod
	Status appsv1.StatefulSetStatus
	After  time.Duration // 0: only an event can change the plan
}

// deletingClaim is when to look again at a claim that is being deleted.
const deletingClaim = 5 * time.Second

type decider struct {
	Input
	plan      Plan
	minReady  time.Duration
	ordered   bool
	slots     []*corev1.Pod // by ordinal from start; nil: none
	condemned []*corev1.Pod // highest ordinal first
}

// Decide plans the next step of a set.
func Decide(in Input) Plan {
	d := &decider{
		Input: in, ordered: in.Set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement,
		minReady: time.Duration(in.Set.Spec.MinReadySeconds) * time.Second, slots: make([]*corev1.Pod, replicas(in.Set)),
	}
	for _, p := range in.Pods {
		switch n := Ordinal(in.Set, p); {
		case n < 0:
		case inRange(in.Set, n):
			d.slots[n-start(in.Set)] = p
		default:
			d.condemned = append(d.condemned, p)
		}
	}
	slices.SortFunc(d.condemned, func(a, b *corev1.Pod) int { return cmp.Compare(Ordinal(in.Set, b), Ordinal(in.Set, a)) })
	d.status()
	if in.Set.DeletionTimestamp == nil {
		d.steps()
	}
	return d.plan
}

// steps go in order; in an ordered set the first that waits ends the plan.
func (d *decider) steps() {
	firstUnavailable := d.firstUnavailable()
	for i := range d.slots {
		if d.slot(i) && d.ordered {
			return
		}
	}
	for _, p := range d.condemned {
		d.own(p)
	}
	for _, p := range d.condemned {
		if p.DeletionTimestamp != nil {
			if d.ordered {
				return
			}
			continue
		}
		if d.ordered && !d.available(p) && p != firstUnavailable {
			return
		}
		d.plan.Delete = append(d.plan.Delete, p)
		if d.ordered {
			return
		}
	}
	d.roll()
}

// firstUnavailable is the pod whose trouble may be ended by scaling it away.
func (d *decider) firstUnavailable() *corev1.Pod {
	for _, p := range d.slots {
		if p != nil && d.unavailable(p) {
			return p
		}
		if p == nil {
			return nil // one that is still to be made is the first
		}
	}
	for _, p := range slices.Backward(d.condemned) {
		if d.unavailable(p) {
			return p
		}
	}
	return nil
}

func (d *decider) available(p *corev1.Pod) bool {
	ok, wait := pods.Available(p, d.minReady, d.Now)
	d.again(wait)
	return ok
}

func (d *decider) unavailable(p *corev1.Pod) bool {
	return p.DeletionTimestamp != nil || !d.available(p)
}

func (d *decider) again(wait time.Duration) {
	if wait > 0 && (d.plan.After == 0 || wait < d.plan.After) {
		d.plan.After = wait
	}
}

// slot cares for one ordinal and reports whether an ordered set has to wait.
func (d *decider) slot(i int) (wait bool) {
	p, ordinal := d.slots[i], start(d.Set)+i
	if p == nil {
		d.create(ordinal)
		return true
	}
	if pods.Finished(p) {
		if p.DeletionTimestamp == nil {
			d.plan.Delete = append(d.plan.Delete, p)
		}
		return true
	}
	if p.Status.Phase == corev1.PodPending {
		d.claim(p, ordinal)
	}
	if p.DeletionTimestamp != nil || p.Status.Phase != corev1.PodRunning || !d.available(p) {
		if d.ordered || p.DeletionTimestamp != nil {
			return true
		}
	}
	d.own(p)
	if !identified(d.Set, p, ordinal) {
		up := p.DeepCopy()
		identify(d.Set, up, ordinal)
		d.plan.Repair = append(d.plan.Repair, up)
	}
	return false
}

// create makes the pod of an ordinal once its claims can be had.
func (d *decider) create(ordinal int) {
	rev := d.Update
	if u := &d.Set.Spec.UpdateStrategy; u.Type == appsv1.RollingUpdateStatefulSetStrategyType || u.Type == "" {
		keep := int(d.Set.Status.CurrentReplicas)
		if u.RollingUpdate != nil {
			keep = partition(d.Set)
		}
		if ordinal < start(d.Set)+keep {
			rev = d.Current
		}
	}
	p := PodFor(d.Set, rev.Template, rev.Name, ordinal)
	if d.claim(p, ordinal) {
		d.plan.Create = append(d.plan.Create, p)
	}
}

// claim makes the missing claims of a pod and reports whether none that it
// finds is on its way out.
func (d *decider) claim(p *corev1.Pod, ordinal int) bool {
	ok := true
	for _, want := range claimsFor(d.Set, ordinal) {
		have := d.Claim(want.Name)
		if have == nil {
			want.OwnerReferences, _ = Owners(want, d.Set, p)
			d.plan.Claims = append(d.plan.Claims, want)
			continue
		}
		if have.DeletionTimestamp != nil || (p.UID == "" && Stale(have, d.Set, p)) {
			d.again(deletingClaim)
			ok = false
		}
	}
	return ok
}

// own writes the owners that the retention policy asks of a pod's claims.
func (d *decider) own(p *corev1.Pod) {
	for _, want := range claimsFor(d.Set, Ordinal(d.Set, p)) {
		have := d.Claim(want.Name)
		if have == nil {
			continue
		}
		if refs, changed := Owners(have, d.Set, p); changed {
			up := have.DeepCopy()
			up.OwnerReferences = refs
			d.plan.Own = append(d.plan.Own, up)
		}
	}
}

func partition(set *appsv1.StatefulSet) int {
	u := set.Spec.UpdateStrategy.RollingUpdate
	if u == nil || u.Partition == nil {
		return 0
	}
	return int(*u.Partition)
}

func (d *decider) maxUnavailable() int {
	u := d.Set.Spec.UpdateStrategy.RollingUpdate
	if u == nil || u.MaxUnavailable == nil {
		return 1
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(u.MaxUnavailable, len(d.slots), false)
	if err != nil { // validation refuses it
		return 1
	}
	return max(1, n)
}

// roll gives up pods of other revisions from the highest ordinal down.
func (d *decider) roll() {
	if t := d.Set.Spec.UpdateStrategy.Type; t != appsv1.RollingUpdateStatefulSetStrategyType && t != "" {
		return
	}
	budget := d.maxUnavailable()
	for _, p := range d.slots {
		if p == nil || d.unavailable(p) {
			budget--
		}
	}
	give := func(p *corev1.Pod) {
		d.plan.Delete = append(d.plan.Delete, p)
		d.plan.Status.CurrentReplicas = max(0, d.plan.Status.CurrentReplicas-1)
	}
	for i := len(d.slots) - 1; i >= min(partition(d.Set), len(d.slots)); i-- {
		p := d.slots[i]
		if p == nil || p.DeletionTimestamp != nil || pods.Finished(p) || revisionOf(p) == d.Update.Name {
			continue
		}
		switch {
		case !d.ordered && !d.available(p): // it serves nobody: replacing it costs nothing
			give(p)
		case budget > 0:
			budget--
			give(p)
		}
	}
}

func (d *decider) status() {
	set := d.Set
	st := appsv1.StatefulSetStatus{
		ObservedGeneration: set.Generation, CurrentRevision: d.Current.Name, UpdateRevision: d.Update.Name,
		CollisionCount: new(int32), Conditions: set.Status.Conditions,
	}
	if set.Status.CollisionCount != nil {
		*st.CollisionCount = *set.Status.CollisionCount
	}
	for _, p := range d.Pods {
		st.Replicas++
		if p.Status.Phase == corev1.PodRunning && pods.Ready(p) {
			st.ReadyReplicas++
			if d.available(p) {
				st.AvailableReplicas++
			}
		}
		if p.DeletionTimestamp != nil {
			continue
		}
		if revisionOf(p) == d.Current.Name {
			st.CurrentReplicas++
		}
		if revisionOf(p) == d.Update.Name {
			st.UpdatedReplicas++
		}
	}
	if n := int32(len(d.slots)); st.UpdatedReplicas == n && st.ReadyReplicas == n && st.Replicas == n { // the update is complete
		st.CurrentReplicas, st.CurrentRevision = st.UpdatedReplicas, st.UpdateRevision
	}
	d.plan.Status = st
}
