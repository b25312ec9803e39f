package validation

import (
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// CronJob validates a new job that repeats. Its name leaves room for the time
// that the controller appends for each run.
func CronJob(c *batchv1.CronJob) field.ErrorList {
	p := meta(&c.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	cronJobSpec(&p, &c.Spec, nil)
	if len(c.Name) > maxCronJobName {
		p.invalid(field.NewPath("metadata", "name"), c.Name, "must be no more than 52 characters")
	}
	return p.list
}

// CronJobUpdate validates a change of a job that repeats.
func CronJobUpdate(c, old *batchv1.CronJob) field.ErrorList {
	p := metaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	cronJobSpec(&p, &c.Spec, &old.Spec)
	return p.list
}

func cronJobSpec(p *problems, s, old *batchv1.CronJobSpec) {
	path := field.NewPath("spec")
	if s.Schedule == "" {
		p.required(path.Child("schedule"), "")
	} else {
		schedule(p, path.Child("schedule"), s, old)
	}
	p.nonNegative(path.Child("startingDeadlineSeconds"), deref(s.StartingDeadlineSeconds))
	if old == nil || (old.TimeZone == nil) != (s.TimeZone == nil) || deref(old.TimeZone) != deref(s.TimeZone) {
		timeZone(p, path.Child("timeZone"), s.TimeZone)
	}
	requireOneOf(p, path.Child("concurrencyPolicy"), s.ConcurrencyPolicy,
		batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent)
	var before *batchv1.JobSpec
	if old != nil {
		before = &old.JobTemplate.Spec
	}
	at, t := path.Child("jobTemplate", "spec"), &s.JobTemplate.Spec
	jobSpec(p, at, t, before)
	if t.Selector != nil {
		p.invalid(at.Child("selector"), t.Selector, "`selector` will be auto-generated")
	}
	if deref(t.ManualSelector) {
		p.add(field.NotSupported(at.Child("manualSelector"), t.ManualSelector, []string{"nil", "false"}))
	}
	p.counts(path, []count{
		{"successfulJobsHistoryLimit", deref(s.SuccessfulJobsHistoryLimit)},
		{"failedJobsHistoryLimit", deref(s.FailedJobsHistoryLimit)},
	})
}

// schedule validates when a job runs. Time zones within the schedule are only
// for jobs that had one before the field for them came.
func schedule(p *problems, path *field.Path, s, old *batchv1.CronJobSpec) {
	if err := parseSchedule(s.Schedule); err != nil {
		p.invalid(path, s.Schedule, err.Error())
	}
	switch kept := old != nil && strings.Contains(old.Schedule, "TZ"); {
	case !strings.Contains(s.Schedule, "TZ"):
	case !kept:
		p.invalid(path, s.Schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead")
	case s.TimeZone != nil:
		p.invalid(path, s.Schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule")
	}
}

// parseSchedule parses a schedule. The parser panics on some of what is no
// schedule.
func parseSchedule(text string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("invalid schedule format: %v", r)
		}
	}()
	_, err = cron.ParseStandard(text)
	return err
}

func timeZone(p *problems, path *field.Path, zone *string) {
	if zone == nil {
		return
	}
	if *zone == "" {
		p.invalid(path, zone, "timeZone must be nil or non-empty string")
		return
	}
	for part := range strings.SplitSeq(*zone, "/") {
		if part == "." || part == ".." || strings.HasPrefix(part, "-") || !matches(`^[A-Za-z\.\-_0-9+]{1,14}$`, part) {
			p.invalid(path, zone, "unknown time zone "+*zone)
			return
		}
	}
	if strings.EqualFold(*zone, "Local") {
		p.invalid(path, zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")
	}
	if _, err := time.LoadLocation(*zone); err != nil {
		p.invalid(path, zone, err.Error())
	}
}
