package job

import (
	"cmp"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"skein.dev/skein/controllers/pods"
)

// Work is one reconcile of a job. [Decide] says which pods to make and
// delete; when that is done, [Work.Track] gives the status to write and the
// pods whose finalizer may go then; when those are gone, [Work.Settle] gives
// the last status. Each pod is in the status's uncounted list before its
// finalizer goes, so no end is lost or counted twice (KEP-2307).
type Work struct {
	Create []*corev1.Pod
	Delete []*corev1.Pod
	// Forget says that the deleted pods do not count: their finalizer goes
	// before they do.
	Forget bool
	After  time.Duration // 0: only an event can change the plan

	job         *batchv1.Job // a copy; its status is what will be written
	was         batchv1.JobStatus
	pods        []*corev1.Pod
	now         time.Time
	active      []*corev1.Pod
	terminating int
	ready       int
	succeeded   int
	failed      int
	prevIndexes Indexes // in the status
	doneIndexes Indexes // with those not yet there
	badIndexes  Indexes
	held        map[int]*corev1.Pod // by index: failed pods kept for their successor
	finish      *batchv1.JobCondition
	events      []string // of Suspended and Resumed
}

// Decide plans the next step of a job whose own pods are all.
func Decide(job *batchv1.Job, all []*corev1.Pod, now time.Time) *Work {
	d := &Work{job: job.DeepCopy(), was: *job.Status.DeepCopy(), pods: slices.Clone(all), now: now}
	if d.job.Status.UncountedTerminatedPods == nil {
		d.job.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	}
	if d.job.Status.StartTime == nil && !suspended(job) {
		d.job.Status.StartTime = &metav1.Time{Time: now}
	}
	slices.SortFunc(d.pods, func(a, b *corev1.Pod) int {
		return cmp.Or(indexOf(a)-indexOf(b), strings.Compare(a.Name, b.Name))
	})
	d.count()
	if d.finish = d.verdict(); d.finish != nil {
		d.Delete = d.active
		return d
	}
	if d.job.DeletionTimestamp == nil {
		d.manage()
		if len(d.Create) == 0 && len(d.Delete) == 0 && d.complete() {
			d.finish = condition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods", now)
		} else {
			d.suspension()
		}
	}
	return d
}

func (d *Work) again(wait time.Duration) {
	if wait > 0 && (d.After == 0 || wait < d.After) {
		d.After = wait
	}
}

// valid reports whether the job's counts speak of the pod.
func (d *Work) valid(p *corev1.Pod) bool {
	if !indexed(d.job) {
		return true
	}
	i := indexOf(p)
	return i != none && i < int(*d.job.Spec.Completions)
}

// count reads the pods.
func (d *Work) count() {
	st := &d.job.Status
	un := st.UncountedTerminatedPods
	d.succeeded, d.failed = int(st.Succeeded)+len(un.Succeeded), int(st.Failed)+len(un.Failed)
	var done, bad []int
	for _, p := range d.pods {
		switch {
		case pods.Active(p):
			d.active = append(d.active, p)
			if pods.Ready(p) {
				d.ready++
			}
		case !pods.Finished(p):
			d.terminating++
		}
		if !tracked(p) || !d.valid(p) {
			continue
		}
		if p.Status.Phase == corev1.PodSucceeded {
			done = append(done, indexOf(p))
			if !slices.Contains(un.Succeeded, p.UID) {
				d.succeeded++
			}
			continue
		}
		if !failed(d.job, p) {
			continue
		}
		out := Match(d.job.Spec.PodFailurePolicy, p)
		if out.Counts && !slices.Contains(un.Failed, p.UID) {
			d.failed++
		}
		if limit := d.job.Spec.BackoffLimitPerIndex; limit != nil && (out.Action == batchv1.PodFailurePolicyActionFailIndex ||
			(out.Counts && counted(p, batchv1.JobIndexFailureCountAnnotation) >= int(*limit))) {
			bad = append(bad, indexOf(p))
		}
	}
	if !indexed(d.job) {
		return
	}
	completions := int(*d.job.Spec.Completions)
	d.prevIndexes = ParseIndexes(st.CompletedIndexes, completions)
	d.doneIndexes = d.prevIndexes.With(done...)
	d.succeeded = d.doneIndexes.Len()
	if d.job.Spec.BackoffLimitPerIndex == nil {
		return
	}
	if st.FailedIndexes != nil {
		d.badIndexes = ParseIndexes(*st.FailedIndexes, completions)
	}
	d.badIndexes = d.badIndexes.With(bad...)
	d.hold()
}

// hold finds the failed pods that keep their finalizer until the next pod of
// their index has taken over their count of failures.
func (d *Work) hold() {
	d.held = map[int]*corev1.Pod{}
	running := indexesOf(d.active)
	for _, p := range d.pods {
		i := indexOf(p)
		if !tracked(p) || !d.valid(p) || !failed(d.job, p) || d.doneIndexes.Has(i) || d.badIndexes.Has(i) || running.Has(i) {
			continue
		}
		if last := d.held[i]; last == nil || (failures(last) <= failures(p) && !endedAt(p).Before(endedAt(last))) {
			d.held[i] = p
		}
	}
}

func (d *Work) complete() bool {
	if len(d.active) > 0 {
		return false
	}
	if d.job.Spec.Completions == nil {
		return d.succeeded > 0
	}
	return d.succeeded >= int(*d.job.Spec.Completions)
}

// wanted is how many pods should be active.
func (d *Work) wanted() int {
	parallelism := 1
	if d.job.Spec.Parallelism != nil {
		parallelism = int(*d.job.Spec.Parallelism)
	}
	switch {
	case suspended(d.job):
		return 0
	case d.job.Spec.Completions != nil:
		return min(parallelism, max(0, int(*d.job.Spec.Completions)-d.succeeded))
	case d.succeeded > 0: // the first success ends the making of pods
		return len(d.active)
	default:
		return parallelism
	}
}

// manage makes or deletes pods, never both in one step.
func (d *Work) manage() {
	want := d.wanted()
	rm, left := d.surplus()
	if extra := len(d.active) - want; len(rm) < extra {
		pods.SortForDeletion(left, nil, d.now)
		rm = append(rm, left[:extra-len(rm)]...)
	}
	if len(rm) > 0 {
		d.Delete, d.Forget = rm[:min(len(rm), pods.MaxBurst)], true
		return
	}
	missing := want - len(d.active)
	if patient(d.job) {
		missing -= d.terminating
	}
	if missing <= 0 || suspended(d.job) {
		return
	}
	if d.job.Spec.BackoffLimitPerIndex == nil {
		if wait := jobPause(d.job, d.pods, d.now); wait > 0 {
			d.again(wait)
			return
		}
	}
	missing = min(missing, pods.MaxBurst)
	if !indexed(d.job) {
		for range missing {
			d.Create = append(d.Create, PodFor(d.job, none, nil))
		}
		return
	}
	for _, i := range d.free().Missing(missing, int(*d.job.Spec.Completions)) {
		if wait := indexPause(d.held[i], d.now); wait > 0 {
			d.again(wait)
			continue
		}
		d.Create = append(d.Create, PodFor(d.job, i, d.held[i]))
	}
}

// free are the indexes that need no pod.
func (d *Work) free() Indexes {
	out := slices.Concat(d.doneIndexes, d.badIndexes, indexesOf(d.active))
	if patient(d.job) {
		for _, p := range d.pods {
			if i := indexOf(p); p.DeletionTimestamp != nil && !pods.Finished(p) && i != none {
				out = append(out, Span{i, i})
			}
		}
	}
	return out.normal()
}

// surplus are active pods without an index of their own, and the others.
func (d *Work) surplus() (rm, left []*corev1.Pod) {
	if !indexed(d.job) {
		return nil, slices.Clone(d.active)
	}
	seen := map[int]bool{}
	for _, p := range d.active {
		i := indexOf(p)
		if !d.valid(p) || seen[i] {
			rm = append(rm, p)
			continue
		}
		seen[i] = true
		left = append(left, p)
	}
	return rm, left
}

// suspension tells in the conditions whether the job is suspended.
func (d *Work) suspension() {
	st := &d.job.Status
	var at *batchv1.JobCondition
	for i := range st.Conditions {
		if st.Conditions[i].Type == batchv1.JobSuspended {
			at = &st.Conditions[i]
		}
	}
	now := metav1.NewTime(d.now)
	switch {
	case suspended(d.job) && (at == nil || at.Status != corev1.ConditionTrue):
		c := condition(batchv1.JobSuspended, "JobSuspended", "Job suspended", d.now)
		if at == nil {
			st.Conditions = append(st.Conditions, *c)
		} else {
			*at = *c
		}
		st.StartTime = nil
		d.events = append(d.events, "Suspended")
	case !suspended(d.job) && at != nil && at.Status == corev1.ConditionTrue:
		*at = *condition(batchv1.JobSuspended, "JobResumed", "Job resumed", d.now)
		at.Status = corev1.ConditionFalse
		st.StartTime = &now // the deadline counts active time only
		d.events = append(d.events, "Resumed")
	}
}

// maxUncounted bounds the list in the status, in bytes too.
const maxUncounted = 500

// Track notes the ends of pods after made pods were made and gone were
// deleted, and returns the status to write, nil: none, and the pods whose
// finalizer may be removed after it is written.
func (d *Work) Track(made int, gone []*corev1.Pod) (status *batchv1.JobStatus, release []*corev1.Pod) {
	st := &d.job.Status
	active, ready := len(d.active)+made-len(gone), d.ready
	for _, p := range gone {
		if pods.Ready(p) {
			ready--
		}
	}
	if d.finish != nil && len(gone) < len(d.Delete) {
		d.finish = nil // some pods could not be deleted: not yet
	}
	d.terminating += len(gone)
	st.Active, st.Ready, st.Terminating = int32(active), new(int32(ready)), new(int32(d.terminating))
	d.clean(nil)
	var done []int
	full := false
	for _, p := range d.pods {
		if !tracked(p) || !d.releasable(p) || (d.Forget && slices.Contains(gone, p)) {
			continue
		}
		release = append(release, p)
		if i, ok := d.note(p); ok {
			done = append(done, i)
		}
		if un := st.UncountedTerminatedPods; len(done)+len(un.Succeeded)+len(un.Failed) >= maxUncounted {
			full = true
			break
		}
	}
	if indexed(d.job) {
		d.prevIndexes = d.prevIndexes.With(done...)
		st.CompletedIndexes, st.Succeeded = d.prevIndexes.String(), int32(d.prevIndexes.Len())
		st.FailedIndexes = nil
		if d.job.Spec.BackoffLimitPerIndex != nil {
			st.FailedIndexes = new(d.badIndexes.String())
		}
	}
	d.interim()
	if full {
		d.finish = nil
	}
	return d.changed(), release
}

// releasable reports whether the pod's end may be booked.
func (d *Work) releasable(p *corev1.Pod) bool {
	if d.job.DeletionTimestamp != nil || d.finish != nil || p.Status.Phase == corev1.PodSucceeded {
		return true
	}
	return failed(d.job, p) && d.held[indexOf(p)] != p
}

// note books the end of a pod; an index that succeeded is its own record.
func (d *Work) note(p *corev1.Pod) (index int, ok bool) {
	un := d.job.Status.UncountedTerminatedPods
	if slices.Contains(un.Failed, p.UID) || slices.Contains(un.Succeeded, p.UID) || !d.valid(p) {
		return none, false
	}
	if p.Status.Phase == corev1.PodSucceeded {
		if indexed(d.job) {
			return indexOf(p), true
		}
		un.Succeeded = append(un.Succeeded, p.UID)
		return none, false
	}
	ends := d.finish != nil && d.finish.Type != batchv1.JobSuccessCriteriaMet // whoever still runs has failed
	if (failed(d.job, p) || ends) && Match(d.job.Spec.PodFailurePolicy, p).Counts {
		un.Failed = append(un.Failed, p.UID)
	}
	return none, false
}

// clean moves those to the counters whose finalizer is gone.
func (d *Work) clean(released map[types.UID]bool) {
	st := &d.job.Status
	holding := map[types.UID]bool{}
	for _, p := range d.pods {
		if tracked(p) && !released[p.UID] {
			holding[p.UID] = true
		}
	}
	keep := func(list []types.UID, count *int32) []types.UID {
		var left []types.UID
		for _, uid := range list {
			if holding[uid] {
				left = append(left, uid)
			} else {
				*count++
			}
		}
		return left
	}
	un := st.UncountedTerminatedPods
	un.Succeeded = keep(un.Succeeded, &st.Succeeded)
	un.Failed = keep(un.Failed, &st.Failed)
}

// interim writes the decision to end before the end itself, so that others
// see it while pods still stop, and turns it into the last condition.
func (d *Work) interim() {
	if d.finish == nil {
		return
	}
	switch d.finish.Type {
	case batchv1.JobFailureTarget:
		d.job.Status.Conditions = append(d.job.Status.Conditions, *d.finish)
		d.finish = condition(batchv1.JobFailed, d.finish.Reason, d.finish.Message, d.now)
	case batchv1.JobSuccessCriteriaMet:
		if has(d.job, batchv1.JobSuccessCriteriaMet) == nil {
			d.job.Status.Conditions = append(d.job.Status.Conditions, *d.finish)
		}
		d.finish = condition(batchv1.JobComplete, d.finish.Reason, d.finish.Message, d.now)
	default:
	}
}

// changed returns the status if it differs from the one last returned.
func (d *Work) changed() *batchv1.JobStatus {
	if equality.Semantic.DeepEqual(d.was, d.job.Status) {
		return nil
	}
	d.was = *d.job.Status.DeepCopy()
	return d.job.Status.DeepCopy()
}

// Settle gives the last status after finalizers were removed, nil: none, and
// the condition with which the job has ended, nil: it has not.
func (d *Work) Settle(released []*corev1.Pod) (status *batchv1.JobStatus, end *batchv1.JobCondition) {
	gone := map[types.UID]bool{}
	for _, p := range released {
		gone[p.UID] = true
	}
	d.clean(gone)
	st := &d.job.Status
	un := st.UncountedTerminatedPods
	if d.finish != nil && len(un.Succeeded)+len(un.Failed) == 0 && d.terminating == 0 {
		end = d.finish
		st.Conditions = append(st.Conditions, *end)
		if end.Type == batchv1.JobComplete {
			st.CompletionTime = &metav1.Time{Time: d.now}
		}
	}
	return d.changed(), end
}
