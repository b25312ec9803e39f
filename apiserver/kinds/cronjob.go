package kinds

import (
	"fmt"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// CronJob declares jobs that repeat.
func CronJob() registry.Kind {
	spec, status := batchv1.CronJobSpec{}, batchv1.CronJobStatus{}
	k := namespaced[batchv1.CronJob, batchv1.CronJobList](batchv1.SchemeGroupVersion, "cronjobs", "cj")
	k.Categories = []string{"all"}
	k.Columns = columns([]metav1.TableColumnDefinition{
		str("Schedule", describe(spec, "schedule")), str("Timezone", describe(spec, "timeZone")),
		boolean("Suspend", describe(spec, "suspend")), num("Active", describe(status, "active")),
		str("Last Schedule", describe(status, "lastScheduleTime")), ageColumn(),
	}, templateColumns(describe(batchv1.JobSpec{}, "selector"))...)
	k.Row = row(cronJobRow)
	k.Default = defaults(defaulting.CronJob)
	divide(&k, true, rules[*batchv1.CronJob]{
		create: func(c *batchv1.CronJob) { dropAlphaJob(&c.Spec.JobTemplate.Spec, nil) },
		update: func(c, old *batchv1.CronJob) {
			dropAlphaJob(&c.Spec.JobTemplate.Spec, &old.Spec.JobTemplate.Spec)
		},
		validate: validation.CronJob, validateUpdate: validation.CronJobUpdate, warn: warnCronJob,
	}, rules[*batchv1.CronJob]{})
	return k
}

func warnCronJob(c, old *batchv1.CronJob) []string {
	var warnings []string
	if old == nil {
		if complaints := utilvalidation.IsDNS1123Label(c.Name); len(complaints) > 0 {
			warnings = append(warnings, fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, "+labelRecommended, complaints))
		}
	}
	if old == nil || c.Generation != old.Generation {
		t := &c.Spec.JobTemplate.Spec.Template
		warnings = append(warnings, warnPodSpec(&t.ObjectMeta, &t.Spec, field.NewPath("spec", "jobTemplate", "spec", "template"))...)
	}
	if old != nil && strings.Contains(c.Spec.Schedule, "TZ") {
		warnings = append(warnings, "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, "+
			"see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details")
	}
	return warnings
}

func cronJobRow(c *batchv1.CronJob) []any {
	last, suspended := none, unset
	if t := c.Status.LastScheduleTime; t != nil {
		last = age(*t)
	}
	if s := c.Spec.Suspend; s != nil {
		suspended = "False"
		if *s {
			suspended = "True"
		}
	}
	names, images := containers(c.Spec.JobTemplate.Spec.Template.Spec.Containers)
	return []any{
		c.Spec.Schedule, valueOr(c.Spec.TimeZone, none), suspended, int64(len(c.Status.Active)), last, age(c.CreationTimestamp),
		names, images, metav1.FormatLabelSelector(c.Spec.JobTemplate.Spec.Selector),
	}
}
