package kinds

import (
	"fmt"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// Job declares jobs.
func Job() registry.Kind {
	return registry.Kind{
		Resource: batchv1.SchemeGroupVersion.WithResource("jobs"), Kind: "Job", Singular: "job",
		Categories: []string{"all"}, Namespaced: true,
		New: func() runtime.Object { return &batchv1.Job{} }, NewList: func() runtime.Object { return &batchv1.JobList{} },
		Columns: columns([]metav1.TableColumnDefinition{
			str("Status", "Status of the job."), str("Completions", describe(batchv1.JobStatus{}, "succeeded")),
			str("Duration", "Time required to complete the job."), ageColumn(),
		}, templateColumns(describe(batchv1.JobSpec{}, "selector"))...),
		Row: row(jobRow), Default: defaults(defaulting.Job),
		Select: selects(func(j *batchv1.Job) fields.Set {
			return fields.Set{"status.successful": strconv.Itoa(int(j.Status.Succeeded))}
		}),
		Strategy: rules[*batchv1.Job]{
			create: func(j *batchv1.Job) {
				if !valueOr(j.Spec.ManualSelector, false) {
					generateSelector(j)
				}
				j.Status, j.Generation = batchv1.JobStatus{}, 1
				dropAlphaJob(&j.Spec, nil)
			},
			update: func(j, old *batchv1.Job) {
				j.Status = old.Status
				dropAlphaJob(&j.Spec, &old.Spec)
				bump(&j.ObjectMeta, &old.ObjectMeta, j.Spec, old.Spec)
			},
			validate: validation.Job, validateUpdate: validation.JobUpdate,
			warn: func(j, old *batchv1.Job) []string {
				if old == nil {
					return warnTemplateOwner(j.Name, &j.Spec.Template)
				}
				return warnTemplateChange(j.Generation != old.Generation, &j.Spec.Template, nil)
			},
		}.strategy(),
		Status: rules[*batchv1.Job]{
			update:         func(j, old *batchv1.Job) { j.Spec = old.Spec },
			validateUpdate: validation.JobStatusUpdate,
		}.status(),
	}
}

// generateSelector labels the pods with their job and selects them by its uid.
func generateSelector(j *batchv1.Job) {
	if j.Spec.Template.Labels == nil {
		j.Spec.Template.Labels = map[string]string{}
	}
	labels := j.Spec.Template.Labels // defaulting may have made them the job's own too
	for key, value := range map[string]string{
		"job-name": j.Name, batchv1.JobNameLabel: j.Name, "controller-uid": string(j.UID), batchv1.ControllerUidLabel: string(j.UID),
	} {
		if _, ok := labels[key]; !ok { // what the user set stays, and may be refused
			labels[key] = value
		}
	}
	if j.Spec.Selector == nil {
		j.Spec.Selector = &metav1.LabelSelector{}
	}
	if j.Spec.Selector.MatchLabels == nil {
		j.Spec.Selector.MatchLabels = map[string]string{}
	}
	if _, ok := j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel]; !ok {
		j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] = string(j.UID)
	}
}

func jobRow(j *batchv1.Job) []any {
	goal := "1"
	if n := j.Spec.Completions; n != nil {
		goal = strconv.Itoa(int(*n))
	} else if n := valueOr(j.Spec.Parallelism, 0); n > 1 {
		goal = fmt.Sprintf("1 of %d", n)
	}
	took := ""
	if start, end := j.Status.StartTime, j.Status.CompletionTime; start != nil && end != nil {
		took = duration.HumanDuration(end.Sub(start.Time))
	} else if start != nil {
		took = duration.HumanDuration(time.Since(start.Time))
	}
	names, images := containers(j.Spec.Template.Spec.Containers)
	return []any{
		jobState(j), fmt.Sprintf("%d/%s", j.Status.Succeeded, goal), took, age(j.CreationTimestamp),
		names, images, metav1.FormatLabelSelector(j.Spec.Selector),
	}
}

func jobState(j *batchv1.Job) string {
	has := map[batchv1.JobConditionType]bool{}
	for _, c := range j.Status.Conditions {
		if _, seen := has[c.Type]; !seen {
			has[c.Type] = c.Status == corev1.ConditionTrue
		}
	}
	switch {
	case has[batchv1.JobComplete]:
		return "Complete"
	case has[batchv1.JobFailed]:
		return "Failed"
	case j.DeletionTimestamp != nil:
		return "Terminating"
	case has[batchv1.JobSuspended]:
		return "Suspended"
	case has[batchv1.JobFailureTarget]:
		return "FailureTarget"
	case has[batchv1.JobSuccessCriteriaMet]:
		return "SuccessCriteriaMet"
	default:
		return "Running"
	}
}
