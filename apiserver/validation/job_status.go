package validation

import (
	"fmt"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// jobStatus is a change of a job's status. Most rules ask only what has
// changed: others may have changed the spec meanwhile, and what was wrong
// before must not stop the job.
type jobStatus struct {
	*problems

	path     *field.Path
	spec     *batchv1.JobSpec
	now, had *batchv1.JobStatus
	is, was  jobState
}

// jobState is what the conditions of a job say.
type jobState struct{ complete, failed, failing, succeeding bool }

func stateOfJob(s *batchv1.JobStatus) jobState {
	return jobState{
		complete: jobCondition(s, batchv1.JobComplete, corev1.ConditionTrue),
		failed:   jobCondition(s, batchv1.JobFailed, corev1.ConditionTrue),
		failing:  jobCondition(s, batchv1.JobFailureTarget, corev1.ConditionTrue), succeeding: jobCondition(s, batchv1.JobSuccessCriteriaMet, corev1.ConditionTrue),
	}
}

func (s jobState) finished() bool { return s.complete || s.failed }

func jobCondition(s *batchv1.JobStatus, of batchv1.JobConditionType, status corev1.ConditionStatus) bool {
	return slices.ContainsFunc(s.Conditions, func(c batchv1.JobCondition) bool { return c.Type == of && c.Status == status })
}

// JobStatusUpdate validates what a job's controller reports, which need not
// be ours.
func JobStatusUpdate(j, old *batchv1.Job) field.ErrorList {
	p := metaUpdate(&j.ObjectMeta, &old.ObjectMeta)
	s := jobStatus{
		problems: &p, path: field.NewPath("status"), spec: &j.Spec, now: &j.Status, had: &old.Status,
		is: stateOfJob(&j.Status), was: stateOfJob(&old.Status),
	}
	p.counts(s.path, []count{
		{"active", s.now.Active},
		{"succeeded", s.now.Succeeded},
		{"failed", s.now.Failed},
		{"ready", deref(s.now.Ready)},
		{"terminating", deref(s.now.Terminating)},
	})
	if u := s.now.UncountedTerminatedPods; u != nil {
		seen, at := map[types.UID]bool{}, s.path.Child("uncountedTerminatedPods")
		s.uncounted(at.Child("succeeded"), u.Succeeded, seen)
		s.uncounted(at.Child("failed"), u.Failed, seen)
	}
	s.conditions()
	s.times()
	s.finishedPods()
	s.indexes()
	return p.list
}

func (s *jobStatus) uncounted(path *field.Path, list []types.UID, seen map[types.UID]bool) {
	for i, uid := range list {
		switch {
		case uid == "":
			s.invalid(path.Index(i), uid, "must not be empty")
		case seen[uid]:
			s.duplicate(path.Index(i), uid)
		}
		seen[uid] = true
	}
}

// refuse complains about the conditions.
func (s *jobStatus) refuse(when bool, complaint string) {
	if when {
		s.invalid(s.path.Child("conditions"), field.OmitValueType{}, complaint)
	}
}

func (s *jobStatus) conditions() {
	is, was := s.is, s.was
	completes, fails := is.complete != was.complete, is.failed != was.failed
	s.refuse(is.complete && is.failed && (completes || fails), "cannot set Complete=True and Failed=true conditions")
	s.refuse(is.complete && is.failing && (completes || is.failing != was.failing), "cannot set Complete=True and FailureTarget=true conditions")
	s.refuse(is.failed && !is.failing && (fails || s.failedIndexesChanged()), "cannot set Failed=True condition without the FailureTarget=true condition")
	s.refuse(is.complete && !is.succeeding && (completes || is.succeeding != was.succeeding),
		"cannot set Complete=True condition without the SuccessCriteriaMet=true condition")
	s.refuse(is.succeeding && is.failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions")
	s.refuse(is.succeeding && is.failing, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions")
	s.refuse(s.spec.SuccessPolicy != nil && !is.succeeding && is.complete,
		"cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True")
	const stays = "cannot disable the terminal %s=True condition"
	s.refuse(was.failed && !is.failed, fmt.Sprintf(stays, batchv1.JobFailed))
	s.refuse(was.complete && !is.complete, fmt.Sprintf(stays, batchv1.JobComplete))
	s.refuse(was.failing && !is.failing, fmt.Sprintf(stays, batchv1.JobFailureTarget))
	s.refuse(was.succeeding && !is.succeeding, "cannot disable the SuccessCriteriaMet=True condition")
	s.refuse(was.complete && !was.succeeding && is.succeeding, "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions")
}

// changedTime tells apart times that Equal would, nil too.
func changedTime(a, b *metav1.Time) bool { return !equality.Semantic.DeepEqual(a, b) }

func (s *jobStatus) times() {
	begin, end := s.path.Child("startTime"), s.path.Child("completionTime")
	started, ended := changedTime(s.now.StartTime, s.had.StartTime), changedTime(s.now.CompletionTime, s.had.CompletionTime)
	if completes := s.is.complete != s.was.complete; completes || ended {
		if s.now.CompletionTime != nil && !s.is.complete {
			s.invalid(end, s.now.CompletionTime, "cannot set completionTime when there is no Complete=True condition")
		}
		if s.now.CompletionTime == nil && s.is.complete {
			s.required(end, "completionTime is required for Complete jobs")
		}
	}
	if (started || ended) && s.now.StartTime != nil && s.now.CompletionTime != nil && s.now.CompletionTime.Before(s.now.StartTime) {
		s.invalid(end, s.now.CompletionTime, "must be equal to or after `startTime`")
	}
	if ended && s.now.CompletionTime != nil && s.had.CompletionTime != nil {
		s.invalid(end, s.now.CompletionTime, apimachinery.FieldImmutableErrorMsg)
	}
	never := deref(s.spec.Suspend) && s.spec.Completions != nil && *s.spec.Completions == 0
	if s.now.StartTime == nil && s.is.finished() && !never && (s.is.finished() != s.was.finished() || started) {
		s.required(begin, "startTime is required for finished job")
	}
	resumes := jobCondition(s.had, batchv1.JobSuspended, corev1.ConditionTrue) && jobCondition(s.now, batchv1.JobSuspended, corev1.ConditionFalse)
	if started && s.had.StartTime != nil && !resumes && !deref(s.spec.Suspend) {
		s.invalid(begin, s.now.StartTime, "field is immutable for unsuspended job once set")
	}
}

// finishedPods validates the counts of pods.
func (s *jobStatus) finishedPods() {
	finishes, finished := s.is.finished() != s.was.finished(), s.is.finished()
	activeChanged, now, had := s.now.Active != s.had.Active, s.now, s.had
	if finished && now.Active > 0 && (finishes || activeChanged) {
		s.invalid(s.path.Child("active"), now.Active, "active>0 is invalid for finished job")
	}
	if u := now.UncountedTerminatedPods; finished && u != nil && len(u.Failed)+len(u.Succeeded) > 0 &&
		(finishes || !equality.Semantic.DeepEqual(u, had.UncountedTerminatedPods)) {
		s.invalid(s.path.Child("uncountedTerminatedPods"), printed(u), "must be empty for finished job")
	}
	if finished && deref(now.Terminating) > 0 && (finishes || !equality.Semantic.DeepEqual(now.Terminating, had.Terminating)) {
		s.invalid(s.path.Child("terminating"), *now.Terminating, "terminating>0 is invalid for finished job")
	}
	if now.Ready != nil && *now.Ready > now.Active && (activeChanged || !equality.Semantic.DeepEqual(now.Ready, had.Ready)) {
		s.invalid(s.path.Child("ready"), *now.Ready, "cannot set more ready pods than active")
	}
	if now.Failed < had.Failed {
		s.invalid(s.path.Child("failed"), now.Failed, "cannot decrease the failed counter")
	}
	// An elastic indexed job forgets indexes that it is scaled down below.
	elastic := s.indexed() && equality.Semantic.DeepEqual(s.spec.Completions, s.spec.Parallelism)
	if now.Succeeded < had.Succeeded && !elastic {
		s.invalid(s.path.Child("succeeded"), now.Succeeded, "cannot decrease the succeeded counter")
	}
}

func (s *jobStatus) indexed() bool { return deref(s.spec.CompletionMode) == batchv1.IndexedCompletion }

func (s *jobStatus) failedIndexesChanged() bool {
	return !equality.Semantic.DeepEqual(s.now.FailedIndexes, s.had.FailedIndexes)
}

func (s *jobStatus) indexes() {
	completed, failed := s.path.Child("completedIndexes"), s.path.Child("failedIndexes")
	completedChanged, failedChanged := s.now.CompletedIndexes != s.had.CompletedIndexes, s.failedIndexesChanged()
	format := func(at *field.Path, list string) {
		if _, complaint := countIndexes(list, *s.spec.Completions); complaint != "" {
			s.invalid(at, list, fmt.Sprintf("error parsing %s: %s", strings.TrimPrefix(at.String(), "status."), complaint))
		}
	}
	if completedChanged {
		if s.spec.Completions != nil {
			format(completed, s.now.CompletedIndexes)
		}
		if s.now.CompletedIndexes != "" && !s.indexed() {
			s.invalid(completed, s.now.CompletedIndexes, "cannot set non-empty completedIndexes when non-indexed completion mode")
		}
	}
	if s.now.FailedIndexes == nil {
		return
	}
	list := *s.now.FailedIndexes
	if failedChanged && s.spec.BackoffLimitPerIndex == nil {
		s.invalid(failed, list, "cannot set non-null failedIndexes when backoffLimitPerIndex is null")
	} else if failedChanged && s.spec.Completions != nil {
		format(failed, list)
	}
	if s.spec.Completions != nil && (completedChanged || failedChanged) {
		if at := overlap(s.now.CompletedIndexes, list, *s.spec.Completions); at >= 0 {
			s.invalid(failed, list, fmt.Sprintf("failedIndexes and completedIndexes overlap at index: %d", at))
		}
	}
}

// overlap is the first index that both lists have, -1 if there is none.
// Intervals that make no sense count for nothing.
func overlap(a, b string, completions int32) int {
	x, y := intervals(a, completions), intervals(b, completions)
	for len(x) > 0 && len(y) > 0 {
		switch {
		case x[0].first <= y[0].last && y[0].first <= x[0].last:
			return max(x[0].first, y[0].first)
		case x[0].first <= y[0].first:
			x = x[1:]
		default:
			y = y[1:]
		}
	}
	return -1
}

func intervals(list string, completions int32) (out []interval) {
	for text := range strings.SplitSeq(list, ",") {
		if i, complaint := parseInterval(text, completions); complaint == "" {
			out = append(out, i)
		}
	}
	return out
}
