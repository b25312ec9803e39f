package validation_test

import (
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/apiserver/validation"
)

func TestJobStatusGoesOneWay(t *testing.T) {
	at := metav1.NewTime(time.Unix(1e9, 0))
	later := metav1.NewTime(time.Unix(1e9+60, 0))
	five, list := int32(5), "3"
	indexed := batchv1.IndexedCompletion
	is := func(types ...batchv1.JobConditionType) (out []batchv1.JobCondition) {
		for _, of := range types {
			out = append(out, batchv1.JobCondition{Type: of, Status: corev1.ConditionTrue})
		}
		return out
	}
	done := batchv1.JobStatus{StartTime: &at, CompletionTime: &later, Succeeded: 5, Conditions: is(batchv1.JobSuccessCriteriaMet, batchv1.JobComplete)}
	for rule, c := range map[string]struct {
		now, old batchv1.JobStatus
		want     string // part of the one complaint, empty for none
	}{
		"a job may complete":                   {now: done, old: batchv1.JobStatus{StartTime: &at}},
		"a completed job stays so":             {now: batchv1.JobStatus{StartTime: &at, Succeeded: 5, Conditions: is(batchv1.JobSuccessCriteriaMet)}, old: done, want: "cannot disable the terminal Complete=True"},
		"counters do not fall":                 {now: batchv1.JobStatus{Failed: 1}, old: batchv1.JobStatus{Failed: 2}, want: "cannot decrease the failed counter"},
		"only a completed job has an end":      {now: batchv1.JobStatus{CompletionTime: &at}, want: "no Complete=True condition"},
		"a completed job has an end":           {now: batchv1.JobStatus{StartTime: &at, Conditions: is(batchv1.JobSuccessCriteriaMet, batchv1.JobComplete)}, want: "completionTime is required"},
		"no more pods are ready than active":   {now: batchv1.JobStatus{Active: 1, Ready: &five}, want: "more ready pods than active"},
		"failed and completed are not one":     {now: batchv1.JobStatus{CompletedIndexes: "1-3", FailedIndexes: &list}, want: "overlap at index: 3"},
		"indexes stay below completions":       {now: batchv1.JobStatus{CompletedIndexes: "7"}, want: `too large index: "7"`},
		"what was wrong before stops nothing":  {now: batchv1.JobStatus{CompletedIndexes: "7", Failed: 1}, old: batchv1.JobStatus{CompletedIndexes: "7"}},
		"a start is not moved while it runs":   {now: batchv1.JobStatus{StartTime: &later}, old: batchv1.JobStatus{StartTime: &at}, want: "immutable for unsuspended job"},
		"a failing job names its reason first": {now: batchv1.JobStatus{StartTime: &at, Conditions: is(batchv1.JobFailed)}, want: "without the FailureTarget=true"},
	} {
		t.Run(rule, func(t *testing.T) {
			spec := batchv1.JobSpec{Completions: &five, CompletionMode: &indexed, BackoffLimitPerIndex: &five}
			meta := metav1.ObjectMeta{Name: "j", Namespace: "default", ResourceVersion: "1"}
			got := validation.JobStatusUpdate(&batchv1.Job{ObjectMeta: meta, Spec: spec, Status: c.now}, &batchv1.Job{ObjectMeta: meta, Spec: spec, Status: c.old})
			switch {
			case c.want == "" && len(got) > 0:
				t.Errorf("refused: %v", got)
			case c.want != "" && (len(got) != 1 || !strings.Contains(got[0].Error(), c.want)):
				t.Errorf("got %v, want one complaint: %s", got, c.want)
			}
		})
	}
}
