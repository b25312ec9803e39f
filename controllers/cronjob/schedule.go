package cronjob

import (
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // zones must be known on machines without a database of them

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
)

// Schedule tells the times of a cron job.
type Schedule interface {
	// Next is the first time after t, zero if there is none.
	Next(t time.Time) time.Time
}

var errSchedule = errors.New("unparseable schedule")

// ParseSchedule reads the schedule in its time zone.
func ParseSchedule(cj *batchv1.CronJob) (s Schedule, err error) {
	defer func() {
		if r := recover(); r != nil { // the parser has panicked on malformed zones
			err = fmt.Errorf("%w %q: %v", errSchedule, cj.Spec.Schedule, r)
		}
	}()
	text := cj.Spec.Schedule
	if cj.Spec.TimeZone != nil && !strings.Contains(text, "TZ") {
		if _, err := time.LoadLocation(*cj.Spec.TimeZone); err != nil {
			return nil, fmt.Errorf("invalid timeZone: %q: %w", *cj.Spec.TimeZone, err)
		}
		text = "TZ=" + *cj.Spec.TimeZone + " " + text
	}
	got, err := cron.ParseStandard(text)
	if err != nil {
		return nil, fmt.Errorf("%w %q: %w", errSchedule, cj.Spec.Schedule, err)
	}
	return got, nil
}

// tooMany missed times are reported; the latest is started all the same.
const tooMany = 100

// Due returns the latest time that is past and was not started yet, zero if
// there is none, and about how many were missed since the last start.
func Due(cj *batchv1.CronJob, s Schedule, now time.Time) (due time.Time, missed int) {
	since := cj.CreationTimestamp.Time
	if cj.Status.LastScheduleTime != nil {
		since = cj.Status.LastScheduleTime.Time
	}
	if d := cj.Spec.StartingDeadlineSeconds; d != nil {
		if limit := now.Add(-time.Duration(*d) * time.Second); limit.After(since) {
			since = limit
		}
	}
	first := s.Next(since)
	if first.IsZero() || first.After(now) {
		return time.Time{}, 0
	}
	second := s.Next(first)
	if second.IsZero() || second.After(now) {
		return first, 1
	}
	step := second.Sub(first).Round(time.Second)
	if step < time.Second {
		return time.Time{}, 0
	}
	// Jump near the end by whole steps, which keeps "@every" in its beat, and
	// walk from there: schedules are not even.
	missed = int(now.Sub(first)/step) + 1
	due = first
	for t := s.Next(first.Add(time.Duration(missed-2) * step)); !t.IsZero() && !t.After(now); t = s.Next(t) {
		due = t
	}
	return due, missed
}
