package cronjob

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Note is an Event to be told.
type Note struct{ Reason, Message string }

// Plan is what one reconcile does, in this order: forget, delete, start.
type Plan struct {
	Delete []*batchv1.Job // replaced ones and history
	Start  *batchv1.Job   // nil: none
	Status batchv1.CronJobStatus
	Notes  []Note
	After  time.Duration
}

// margin is added to the next time, so that a clock read early does not miss it.
const margin = 100 * time.Millisecond

func (p *Plan) note(reason, format string, args ...any) {
	p.Notes = append(p.Notes, Note{reason, fmt.Sprintf(format, args...)})
}

func ended(j *batchv1.Job) (batchv1.JobConditionType, bool) {
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c.Type, true
		}
	}
	return "", false
}

// Decide plans the next step. jobs are its own; missing are those of the
// status that the API no longer has.
func Decide(cj *batchv1.CronJob, jobs []*batchv1.Job, missing map[types.UID]bool, now time.Time) Plan {
	p := Plan{Status: *cj.Status.DeepCopy()}
	p.book(jobs, missing)
	p.prune(cj, jobs)
	if cj.DeletionTimestamp != nil || (cj.Spec.Suspend != nil && *cj.Spec.Suspend) {
		return p
	}
	s, err := ParseSchedule(cj)
	if err != nil {
		p.note("UnparseableSchedule", "%v", err)
		return p
	}
	if next := s.Next(now); !next.IsZero() {
		p.After = next.Sub(now) + margin
	}
	due, missed := Due(cj, s, now)
	if due.IsZero() {
		return p
	}
	if missed > tooMany {
		p.note("TooManyMissedTimes", "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew")
	}
	p.start(cj, jobs, due)
	return p
}

// book keeps the list of active jobs and the time of the last success.
func (p *Plan) book(jobs []*batchv1.Job, missing map[types.UID]bool) {
	for _, j := range jobs {
		t, over := ended(j)
		at := slices.IndexFunc(p.Status.Active, func(r corev1.ObjectReference) bool { return r.UID == j.UID })
		if over && at >= 0 {
			p.Status.Active = slices.Delete(p.Status.Active, at, at+1)
			p.note("SawCompletedJob", "Saw completed job: %s, condition: %v", j.Name, t)
		}
		if done := j.Status.CompletionTime; over && t == batchv1.JobComplete && done != nil &&
			(p.Status.LastSuccessfulTime == nil || done.After(p.Status.LastSuccessfulTime.Time)) {
			p.Status.LastSuccessfulTime = done
		}
	}
	p.Status.Active = slices.DeleteFunc(p.Status.Active, func(r corev1.ObjectReference) bool {
		if missing[r.UID] {
			p.note("MissingJob", "Active job went missing: %v", r.Name)
		}
		return missing[r.UID]
	})
}

// prune gives up the oldest ended jobs beyond the history limits.
func (p *Plan) prune(cj *batchv1.CronJob, jobs []*batchv1.Job) {
	for t, limit := range map[batchv1.JobConditionType]*int32{
		batchv1.JobComplete: cj.Spec.SuccessfulJobsHistoryLimit, batchv1.JobFailed: cj.Spec.FailedJobsHistoryLimit,
	} {
		var old []*batchv1.Job
		for _, j := range jobs {
			if got, over := ended(j); over && got == t && j.DeletionTimestamp == nil {
				old = append(old, j)
			}
		}
		if limit == nil || len(old) <= int(*limit) {
			continue
		}
		slices.SortFunc(old, func(a, b *batchv1.Job) int {
			return cmp.Or(startOf(a).Compare(startOf(b)), strings.Compare(a.Name, b.Name))
		})
		p.Delete = append(p.Delete, old[:len(old)-int(*limit)]...)
	}
	slices.SortFunc(p.Delete, func(a, b *batchv1.Job) int { return strings.Compare(a.Name, b.Name) })
}

func startOf(j *batchv1.Job) time.Time {
	if j.Status.StartTime == nil {
		return time.Time{}
	}
	return j.Status.StartTime.Time
}

// start plans the job of a due time, as far as the policies allow.
func (p *Plan) start(cj *batchv1.CronJob, jobs []*batchv1.Job, due time.Time) {
	if cj.Status.LastScheduleTime != nil && cj.Status.LastScheduleTime.Time.Equal(due) {
		return
	}
	if cj.Spec.ConcurrencyPolicy == batchv1.ForbidConcurrent && len(p.Status.Active) > 0 {
		p.note("JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid")
		return
	}
	if cj.Spec.ConcurrencyPolicy == batchv1.ReplaceConcurrent {
		for _, r := range p.Status.Active {
			if i := slices.IndexFunc(jobs, func(j *batchv1.Job) bool { return j.UID == r.UID }); i >= 0 {
				p.Delete = append(p.Delete, jobs[i])
			}
		}
		p.Status.Active = nil
	}
	p.Start = JobFor(cj, due)
	p.Status.LastScheduleTime = &metav1.Time{Time: due}
}

// JobFor is the job of a time. Its name follows from the time, so the same
// start is never made twice.
func JobFor(cj *batchv1.CronJob, due time.Time) *batchv1.Job {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{
		Name: fmt.Sprintf("%s-%d", cj.Name, due.Unix()/60), Namespace: cj.Namespace,
		Labels: maps.Clone(cj.Spec.JobTemplate.Labels), Annotations: maps.Clone(cj.Spec.JobTemplate.Annotations),
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(cj, batchv1.SchemeGroupVersion.WithKind("CronJob"))},
	}}
	if j.Annotations == nil {
		j.Annotations = map[string]string{}
	}
	zone := time.UTC
	if cj.Spec.TimeZone != nil {
		if z, err := time.LoadLocation(*cj.Spec.TimeZone); err == nil {
			zone = z
		}
	}
	j.Annotations[batchv1.CronJobScheduledTimestampAnnotation] = due.In(zone).Format(time.RFC3339)
	cj.Spec.JobTemplate.Spec.DeepCopyInto(&j.Spec)
	return j
}
