package job

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func condition(t batchv1.JobConditionType, reason, message string, now time.Time) *batchv1.JobCondition {
	return &batchv1.JobCondition{
		Type: t, Status: corev1.ConditionTrue, Reason: reason, Message: message,
		LastProbeTime: metav1.NewTime(now), LastTransitionTime: metav1.NewTime(now),
	}
}

func (d *Work) fail(reason, message string) *batchv1.JobCondition {
	return condition(batchv1.JobFailureTarget, reason, message, d.now)
}

// has returns the condition of a type if it is true.
func has(job *batchv1.Job, t batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range job.Status.Conditions {
		if c := &job.Status.Conditions[i]; c.Type == t && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}

// Finished reports whether the job has ended.
func Finished(job *batchv1.Job) bool {
	return has(job, batchv1.JobComplete) != nil || has(job, batchv1.JobFailed) != nil
}

// verdict is how the job must end by what is known, nil while it may go on:
// what an earlier reconcile decided stands; then failures, then successes.
func (d *Work) verdict() *batchv1.JobCondition {
	job := d.job
	if c := has(job, batchv1.JobSuccessCriteriaMet); c != nil {
		return c
	}
	if c := has(job, batchv1.JobFailureTarget); c != nil {
		return condition(batchv1.JobFailed, c.Reason, c.Message, d.now)
	}
	if job.Spec.PodFailurePolicy != nil {
		for _, p := range d.pods {
			if !failed(job, p) {
				continue
			}
			if why := Match(job.Spec.PodFailurePolicy, p).Fails; why != "" {
				return d.fail(batchv1.JobReasonPodFailurePolicy, why)
			}
		}
	}
	if job.Spec.BackoffLimit != nil && (d.failed > int(*job.Spec.BackoffLimit) || restartsExceed(job, d.pods)) {
		return d.fail(batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit")
	}
	if limit := job.Spec.ActiveDeadlineSeconds; limit != nil && job.Status.StartTime != nil && !suspended(job) {
		left := time.Duration(*limit)*time.Second - d.now.Sub(job.Status.StartTime.Time)
		if left <= 0 {
			return d.fail(batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline")
		}
		d.again(left)
	}
	if !indexed(job) {
		return nil
	}
	if bad := d.badIndexes.Len(); job.Spec.BackoffLimitPerIndex != nil && bad > 0 {
		if m := job.Spec.MaxFailedIndexes; m != nil && bad > int(*m) {
			return d.fail(batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes")
		}
		if bad+d.doneIndexes.Len() >= int(*job.Spec.Completions) {
			return d.fail(batchv1.JobReasonFailedIndexes, "Job has failed indexes")
		}
	}
	if why, ok := Succeeded(job.Spec.SuccessPolicy, d.doneIndexes, int(*job.Spec.Completions)); ok {
		return condition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonSuccessPolicy, why, d.now)
	}
	return nil
}

// restartsExceed counts restarts in place, which are failures where the pods
// are restarted and not replaced.
func restartsExceed(job *batchv1.Job, all []*corev1.Pod) bool {
	if job.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	n := int32(0)
	for _, p := range all {
		if p.Status.Phase != corev1.PodRunning && p.Status.Phase != corev1.PodPending {
			continue
		}
		for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
			for i := range list {
				n += list[i].RestartCount
			}
		}
	}
	return n > 0 && n >= *job.Spec.BackoffLimit
}
