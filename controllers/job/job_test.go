package job_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"skein.dev/skein/controllers/job"
)

var began = time.Unix(10000, 0)

func TestIndexesReadWhatTheyWrite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := map[int]bool{}
		var x job.Indexes
		for range rapid.IntRange(0, 40).Draw(t, "n") {
			i := rapid.IntRange(0, 60).Draw(t, "i")
			set[i] = true
			x = x.With(i)
		}
		again := job.ParseIndexes(x.String(), 100)
		if x.Len() != len(set) || again.String() != x.String() {
			t.Fatalf("%v written as %q and read as %v", set, x, again)
		}
		for i := range 62 {
			if x.Has(i) != set[i] {
				t.Fatalf("%q has %d: %v", x, i, x.Has(i))
			}
		}
		for _, i := range x.Missing(5, 50) {
			if set[i] || i >= 50 {
				t.Fatalf("%d is missing from %q", i, x)
			}
		}
	})
}

func TestIndexesAreShort(t *testing.T) {
	for in, want := range map[string]string{"": "", "0,1": "0,1", "0,1,2": "0-2", "1,3-4,5,7": "1,3-5,7", "9,x,-3": "9", "3-1000": "3-99"} {
		if got := job.ParseIndexes(in, 100).String(); got != want {
			t.Errorf("%q reads as %q, want %q", in, got, want)
		}
	}
}

func TestMatch(t *testing.T) {
	in, notIn, main := batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn, "main"
	exit := func(name string, code int32) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}}
	}
	rule := func(a batchv1.PodFailurePolicyAction, container *string, op batchv1.PodFailurePolicyOnExitCodesOperator, codes ...int32) batchv1.PodFailurePolicyRule {
		return batchv1.PodFailurePolicyRule{Action: a, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{ContainerName: container, Operator: op, Values: codes}}
	}
	evicted := batchv1.PodFailurePolicyRule{Action: batchv1.PodFailurePolicyActionIgnore, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{
		{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue},
	}}
	for _, row := range []struct {
		name   string
		rules  []batchv1.PodFailurePolicyRule
		status corev1.PodStatus
		want   job.Outcome
	}{
		{"no rule matches", []batchv1.PodFailurePolicyRule{rule(batchv1.PodFailurePolicyActionFailJob, nil, in, 42)}, corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{exit("main", 1)}}, job.Outcome{Counts: true}},
		{
			"an exit code fails the job",
			[]batchv1.PodFailurePolicyRule{rule(batchv1.PodFailurePolicyActionFailJob, &main, in, 42)},
			corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{exit("main", 42)}},
			job.Outcome{Action: batchv1.PodFailurePolicyActionFailJob, Counts: true, Fails: "Container main for pod default/p failed with exit code 42 matching FailJob rule at index 0"},
		},
		{"of another container it does not", []batchv1.PodFailurePolicyRule{rule(batchv1.PodFailurePolicyActionFailJob, &main, in, 42)}, corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{exit("x", 42)}}, job.Outcome{Counts: true}},
		{"success is never matched", []batchv1.PodFailurePolicyRule{rule(batchv1.PodFailurePolicyActionFailJob, nil, notIn, 42)}, corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{exit("main", 0)}}, job.Outcome{Counts: true}},
		{"init containers count", []batchv1.PodFailurePolicyRule{rule(batchv1.PodFailurePolicyActionIgnore, nil, notIn, 42)}, corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{exit("i", 7)}}, job.Outcome{Action: batchv1.PodFailurePolicyActionIgnore}},
		{
			"the first rule counts",
			[]batchv1.PodFailurePolicyRule{evicted, rule(batchv1.PodFailurePolicyActionFailJob, nil, in, 42)},
			corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}, ContainerStatuses: []corev1.ContainerStatus{exit("main", 42)}},
			job.Outcome{Action: batchv1.PodFailurePolicyActionIgnore},
		},
	} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default"}, Status: row.status}
		if d := cmp.Diff(row.want, job.Match(&batchv1.PodFailurePolicy{Rules: row.rules}, p)); d != "" {
			t.Errorf("%s: %s", row.name, d)
		}
	}
}

func TestSuccessPolicy(t *testing.T) {
	two, some := int32(2), "1-3"
	for _, row := range []struct {
		done string
		rule batchv1.SuccessPolicyRule
		want bool
	}{
		{"0", batchv1.SuccessPolicyRule{SucceededCount: &two}, false},
		{"0,4", batchv1.SuccessPolicyRule{SucceededCount: &two}, true},
		{"1,2", batchv1.SuccessPolicyRule{SucceededIndexes: &some}, false},
		{"0-3", batchv1.SuccessPolicyRule{SucceededIndexes: &some}, true},
		{"0,1,5", batchv1.SuccessPolicyRule{SucceededIndexes: &some, SucceededCount: &two}, false},
		{"1,3", batchv1.SuccessPolicyRule{SucceededIndexes: &some, SucceededCount: &two}, true},
	} {
		_, got := job.Succeeded(&batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{row.rule}}, job.ParseIndexes(row.done, 10), 10)
		if got != row.want {
			t.Errorf("%s with %+v: %v", row.done, row.rule, got)
		}
	}
}

// world runs a job: it carries out what each reconcile asks for.
type world struct {
	*testing.T
	job  *batchv1.Job
	pods []*corev1.Pod
	now  time.Time
	n    int
	ends func(*corev1.Pod) corev1.PodPhase // how a pod ends; "": it goes on
	most int                               // active at once
}

func newWorld(t *testing.T, edit func(*batchv1.JobSpec)) *world {
	t.Helper()
	one, six := int32(1), int32(6)
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j", Namespace: "default", UID: "j"}, Spec: batchv1.JobSpec{
		Parallelism: &one, Completions: &one, BackoffLimit: &six,
	}}
	j.Spec.Template.Spec.Containers = []corev1.Container{{Name: "main"}}
	edit(&j.Spec)
	return &world{T: t, job: j, now: began, ends: func(*corev1.Pod) corev1.PodPhase { return corev1.PodSucceeded }}
}

func (w *world) step() *job.Work {
	work := job.Decide(w.job, w.pods, w.now)
	var gone []*corev1.Pod
	for _, p := range slices.Clone(work.Delete) {
		gone = append(gone, p)
		if work.Forget {
			p.Finalizers = nil
		}
		p.DeletionTimestamp = &metav1.Time{Time: w.now}
	}
	for _, p := range work.Create {
		w.n++
		p.UID, p.CreationTimestamp = types.UID(fmt.Sprint("p", w.n)), metav1.NewTime(w.now)
		p.Status.Phase = corev1.PodRunning
		w.pods = append(w.pods, p)
	}
	st, release := work.Track(len(work.Create), gone)
	if st != nil {
		w.job.Status = *st
	}
	for _, p := range release {
		p.Finalizers = nil
	}
	if st, _ = work.Settle(release); st != nil {
		w.job.Status = *st
	}
	w.most = max(w.most, int(w.job.Status.Active))
	return work
}

// run steps until the job has ended; each round is a minute, in which pods
// end as they do and those being deleted go.
func (w *world) run() {
	w.Helper()
	for range 200 {
		w.step()
		if job.Finished(w.job) {
			return
		}
		w.now = w.now.Add(20 * time.Minute)
		var left []*corev1.Pod
		for _, p := range w.pods {
			if p.DeletionTimestamp != nil {
				if len(p.Finalizers) > 0 {
					p = p.DeepCopy()
					p.Status.Phase = corev1.PodFailed
					left = append(left, p)
				}
				continue
			}
			if phase := w.ends(p); p.Status.Phase == corev1.PodRunning && phase != "" {
				p = p.DeepCopy()
				p.Status.Phase = phase
			}
			left = append(left, p)
		}
		w.pods = left
	}
	w.Fatalf("the job never ends: %+v", w.job.Status)
}

func (w *world) end() string {
	for _, c := range w.job.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return fmt.Sprintf("%s/%s %d+%d- [%s]", c.Type, c.Reason, w.job.Status.Succeeded, w.job.Status.Failed, w.job.Status.CompletedIndexes)
		}
	}
	return "running"
}

func TestJobsEnd(t *testing.T) {
	i32 := func(n int32) *int32 { return &n }
	mode := batchv1.IndexedCompletion
	index := func(p *corev1.Pod) string { return p.Annotations[batchv1.JobCompletionIndexAnnotation] }
	fails := func(*corev1.Pod) corev1.PodPhase { return corev1.PodFailed }
	oddFail := func(p *corev1.Pod) corev1.PodPhase {
		if i := index(p); i == "1" || i == "3" {
			return corev1.PodFailed
		}
		return corev1.PodSucceeded
	}
	for _, row := range []struct {
		name string
		spec func(*batchv1.JobSpec)
		ends func(*corev1.Pod) corev1.PodPhase
		want string
		most int
	}{
		{name: "one pod", spec: func(*batchv1.JobSpec) {}, want: "Complete/CompletionsReached 1+0- []", most: 1},
		{name: "five, two at a time", spec: func(s *batchv1.JobSpec) { s.Completions, s.Parallelism = i32(5), i32(2) }, want: "Complete/CompletionsReached 5+0- []", most: 2},
		{name: "never more pods than completions", spec: func(s *batchv1.JobSpec) { s.Completions, s.Parallelism = i32(2), i32(9) }, want: "Complete/CompletionsReached 2+0- []", most: 2},
		{name: "a queue of workers", spec: func(s *batchv1.JobSpec) { s.Completions, s.Parallelism = nil, i32(3) }, want: "Complete/CompletionsReached 3+0- []", most: 3},
		{name: "backoffLimit", spec: func(s *batchv1.JobSpec) { s.BackoffLimit = i32(2) }, ends: fails, want: "Failed/BackoffLimitExceeded 0+3- []", most: 1},
		{name: "indexes", spec: func(s *batchv1.JobSpec) { s.Completions, s.Parallelism, s.CompletionMode = i32(4), i32(2), &mode }, want: "Complete/CompletionsReached 4+0- [0-3]", most: 2},
		{name: "activeDeadlineSeconds", spec: func(s *batchv1.JobSpec) { s.ActiveDeadlineSeconds = new(int64(60)) }, ends: func(*corev1.Pod) corev1.PodPhase { return "" }, want: "Failed/DeadlineExceeded 0+1- []", most: 1},
		{name: "backoffLimitPerIndex", spec: func(s *batchv1.JobSpec) {
			s.Completions, s.Parallelism, s.CompletionMode, s.BackoffLimitPerIndex, s.BackoffLimit = i32(4), i32(4), &mode, i32(1), i32(100)
		}, ends: oddFail, want: "Failed/FailedIndexes 2+4- [0,2]", most: 4},
		{name: "maxFailedIndexes", spec: func(s *batchv1.JobSpec) {
			s.Completions, s.Parallelism, s.CompletionMode, s.BackoffLimitPerIndex, s.BackoffLimit, s.MaxFailedIndexes = i32(9), i32(4), &mode, i32(0), i32(100), i32(1)
		}, ends: oddFail, want: "Failed/MaxFailedIndexesExceeded 2+2- [0,2]", most: 4},
		{name: "successPolicy", spec: func(s *batchv1.JobSpec) {
			s.Completions, s.Parallelism, s.CompletionMode = i32(9), i32(3), &mode
			s.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededCount: i32(2)}}}
		}, want: "Complete/SuccessPolicy 3+0- [0-2]", most: 3},
		{name: "podFailurePolicy", spec: func(s *batchv1.JobSpec) {
			s.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{Action: batchv1.PodFailurePolicyActionFailJob, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: "Ready", Status: "False"}}}}}
		}, ends: fails, want: "Failed/BackoffLimitExceeded 0+7- []", most: 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t, row.spec)
			if row.ends != nil {
				w.ends = row.ends
			}
			w.run()
			if got := w.end(); got != row.want || w.most != row.most {
				t.Errorf("ended as %s with at most %d pods, want %s and %d", got, w.most, row.want, row.most)
			}
			for _, p := range w.pods {
				if len(p.Finalizers) > 0 {
					t.Errorf("pod %s is held after the end", p.Name)
				}
			}
			if un := w.job.Status.UncountedTerminatedPods; un != nil && len(un.Succeeded)+len(un.Failed) > 0 {
				t.Errorf("uncounted after the end: %+v", un)
			}
		})
	}
}

func TestAReplacedIndexCarriesItsFailures(t *testing.T) {
	mode, one, nine := batchv1.IndexedCompletion, int32(1), int32(9)
	w := newWorld(t, func(s *batchv1.JobSpec) {
		s.CompletionMode, s.BackoffLimitPerIndex, s.Completions, s.BackoffLimit = &mode, &nine, &one, new(int32(100))
	})
	w.ends = func(*corev1.Pod) corev1.PodPhase { return corev1.PodFailed }
	w.run()
	if w.n != 10 || w.job.Status.Failed != 10 {
		t.Errorf("%d pods, %d failures, want 10 of each", w.n, w.job.Status.Failed)
	}
}

func TestAFailedPodIsReplacedOnlyAfterAPause(t *testing.T) {
	w := newWorld(t, func(*batchv1.JobSpec) {})
	w.step()
	w.pods[0].Status.Phase = corev1.PodFailed
	if work := w.step(); len(work.Create) != 0 || work.After != 10*time.Second {
		t.Fatalf("creates %d, comes again after %v, want none and 10s", len(work.Create), work.After)
	}
	w.now = w.now.Add(11 * time.Second)
	if work := w.step(); len(work.Create) != 1 {
		t.Fatalf("creates %d after the pause, want 1", len(work.Create))
	}
}

func TestSuspendedJobsHaveNoPodsAndLoseNone(t *testing.T) {
	two := int32(2)
	w := newWorld(t, func(s *batchv1.JobSpec) { s.Completions, s.Parallelism = &two, &two })
	w.step()
	yes, no := true, false
	w.job.Spec.Suspend = &yes
	if work := w.step(); len(work.Delete) != 2 || !work.Forget {
		t.Fatalf("deletes %d pods", len(work.Delete))
	}
	w.pods = nil
	w.step()
	if w.job.Status.Failed != 0 || w.job.Status.Active != 0 || w.job.Status.StartTime != nil {
		t.Errorf("status is %+v", w.job.Status)
	}
	w.job.Spec.Suspend = &no
	w.run()
	if got := w.end(); got != "Complete/CompletionsReached 2+0- []" {
		t.Errorf("ended as %s", got)
	}
}

func TestPatientJobsWaitForTheEndOfAPod(t *testing.T) {
	policy := batchv1.Failed
	w := newWorld(t, func(s *batchv1.JobSpec) { s.PodReplacementPolicy = &policy })
	w.step()
	w.pods[0].DeletionTimestamp = &metav1.Time{Time: w.now}
	w.now = w.now.Add(time.Hour)
	if work := w.step(); len(work.Create) != 0 || *w.job.Status.Terminating != 1 {
		t.Errorf("a terminating pod is replaced: creates %d", len(work.Create))
	}
	w.pods[0].Status.Phase = corev1.PodFailed
	if work := w.step(); len(work.Create) != 1 {
		t.Errorf("an ended pod is not replaced")
	}
}
