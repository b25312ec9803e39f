package cronjob_test

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"skein.dev/skein/controllers/cronjob"
)

func at(clock string) time.Time {
	t, err := time.Parse(time.DateTime, "2026-11-21 "+clock)
	if err != nil {
		panic(err)
	}
	return t
}

func cron(schedule string, edit ...func(*batchv1.CronJob)) *batchv1.CronJob {
	c := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "default", UID: "c", CreationTimestamp: metav1.NewTime(at("08:59:30"))}}
	c.Spec.Schedule = schedule
	for _, f := range edit {
		f(c)
	}
	return c
}

func runs(name string, end batchv1.JobConditionType) *batchv1.Job {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	j.Status.StartTime = &metav1.Time{Time: at("08:00:00")}
	if end != "" {
		j.Status.Conditions = []batchv1.JobCondition{{Type: end, Status: corev1.ConditionTrue}}
		j.Status.CompletionTime = &metav1.Time{Time: at("08:30:00")}
	}
	return j
}

func active(names ...string) func(*batchv1.CronJob) {
	return func(c *batchv1.CronJob) {
		for _, n := range names {
			c.Status.Active = append(c.Status.Active, corev1.ObjectReference{Name: n, UID: types.UID(n)})
		}
	}
}

func policy(p batchv1.ConcurrencyPolicy) func(*batchv1.CronJob) {
	return func(c *batchv1.CronJob) { c.Spec.ConcurrencyPolicy = p }
}

func last(t time.Time) func(*batchv1.CronJob) {
	return func(c *batchv1.CronJob) { c.Status.LastScheduleTime = &metav1.Time{Time: t} }
}

func TestDecideStarts(t *testing.T) {
	for _, row := range []struct {
		name   string
		cron   *batchv1.CronJob
		jobs   []*batchv1.Job
		now    time.Time
		start  time.Time // zero: nothing
		delete int
		after  time.Duration
	}{
		{name: "not before its time", cron: cron("0 * * * *"), now: at("08:59:59"), after: time.Second},
		{name: "at its time", cron: cron("0 * * * *"), now: at("09:00:00"), start: at("09:00:00"), after: time.Hour},
		{name: "late, but the latest only", cron: cron("*/10 * * * *"), now: at("09:35:00"), start: at("09:30:00"), after: 5 * time.Minute},
		{name: "a time is started once", cron: cron("0 * * * *", last(at("09:00:00"))), now: at("09:00:05"), after: 59*time.Minute + 55*time.Second},
		{name: "not after its deadline", cron: cron("0 * * * *", func(c *batchv1.CronJob) { c.Spec.StartingDeadlineSeconds = new(int64(60)) }), now: at("09:05:00"), after: 55 * time.Minute},
		{name: "not while suspended", cron: cron("0 * * * *", func(c *batchv1.CronJob) { c.Spec.Suspend = new(true) }), now: at("09:00:00")},
		{name: "not when it cannot be read", cron: cron("every now and then"), now: at("09:00:00")},
		{name: "Forbid waits for the one before", cron: cron("0 * * * *", policy(batchv1.ForbidConcurrent), active("a")), jobs: []*batchv1.Job{runs("a", "")}, now: at("09:00:00"), after: time.Hour},
		{name: "Forbid goes on when that has ended", cron: cron("0 * * * *", policy(batchv1.ForbidConcurrent), active("a")), jobs: []*batchv1.Job{runs("a", batchv1.JobComplete)}, now: at("09:00:00"), start: at("09:00:00"), after: time.Hour},
		{name: "Replace ends the one before", cron: cron("0 * * * *", policy(batchv1.ReplaceConcurrent), active("a")), jobs: []*batchv1.Job{runs("a", "")}, now: at("09:00:00"), start: at("09:00:00"), delete: 1, after: time.Hour},
		{name: "Allow runs beside it", cron: cron("0 * * * *", active("a")), jobs: []*batchv1.Job{runs("a", "")}, now: at("09:00:00"), start: at("09:00:00"), after: time.Hour},
		{name: "in its own zone", cron: cron("0 10 * * *", func(c *batchv1.CronJob) { z := "Europe/Berlin"; c.Spec.TimeZone = &z }), now: at("09:00:30"), start: at("09:00:00"), after: 24*time.Hour - 30*time.Second},
		{name: "a day that never comes", cron: cron("59 23 31 2 *"), now: at("09:00:00")},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := cronjob.Decide(row.cron, row.jobs, nil, row.now)
			want := ""
			if !row.start.IsZero() {
				want = cronjob.JobFor(row.cron, row.start).Name
			}
			got := ""
			if p.Start != nil {
				got = p.Start.Name
			}
			if got != want || len(p.Delete) != row.delete {
				t.Errorf("starts %q and deletes %d, want %q and %d", got, len(p.Delete), want, row.delete)
			}
			if row.after > 0 {
				row.after += 100 * time.Millisecond
			}
			if p.After != row.after {
				t.Errorf("comes again after %v, want %v", p.After, row.after)
			}
		})
	}
}

func TestDecideBooksEndsAndKeepsHistory(t *testing.T) {
	c := cron("0 * * * *", active("a", "b", "gone"), last(at("09:00:00")), func(c *batchv1.CronJob) {
		c.Spec.SuccessfulJobsHistoryLimit, c.Spec.FailedJobsHistoryLimit = new(int32(1)), new(int32(0))
	})
	older := runs("older", batchv1.JobComplete)
	older.Status.StartTime = &metav1.Time{Time: at("07:00:00")}
	p := cronjob.Decide(c, []*batchv1.Job{runs("a", batchv1.JobComplete), runs("b", ""), runs("f", batchv1.JobFailed), older}, map[types.UID]bool{"gone": true}, at("09:10:00"))
	if len(p.Status.Active) != 1 || p.Status.Active[0].Name != "b" {
		t.Errorf("active: %v, want b", p.Status.Active)
	}
	if p.Status.LastSuccessfulTime == nil || !p.Status.LastSuccessfulTime.Time.Equal(at("08:30:00")) {
		t.Errorf("last success: %v", p.Status.LastSuccessfulTime)
	}
	if len(p.Delete) != 2 || p.Delete[0].Name != "f" || p.Delete[1].Name != "older" {
		t.Errorf("deletes %v, want f and older", p.Delete)
	}
}

func TestDueJumpsOverALongSleep(t *testing.T) {
	c := cron("* * * * *", last(at("09:00:00").AddDate(-3, 0, 0)))
	s, err := cronjob.ParseSchedule(c)
	if err != nil {
		t.Fatal(err)
	}
	due, missed := cronjob.Due(c, s, at("09:00:30"))
	if !due.Equal(at("09:00:00")) || missed < 1_000_000 {
		t.Errorf("due at %v with %d missed", due, missed)
	}
}
