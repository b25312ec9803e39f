package defaulting

import (
	"math"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// PriorityClass lets pods of a class preempt lower ones.
func PriorityClass(c *schedulingv1.PriorityClass) {
	point(&c.PreemptionPolicy, corev1.PreemptLowerPriority)
}

// StorageClass deletes volumes with their claims and binds at once.
func StorageClass(c *storagev1.StorageClass) {
	point(&c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)
	point(&c.VolumeBindingMode, storagev1.VolumeBindingImmediate)
}

// Job defaults a job: one pod, six failures, labelled like its template.
func Job(j *batchv1.Job) {
	JobSpec(&j.Spec)
	s := &j.Spec
	if s.Completions == nil && s.Parallelism == nil {
		point(&s.Completions, 1)
	}
	point(&s.Parallelism, 1)
	if s.BackoffLimitPerIndex != nil {
		point(&s.BackoffLimit, math.MaxInt32)
	}
	point(&s.BackoffLimit, 6)
	if len(j.Labels) == 0 && s.Template.Labels != nil {
		j.Labels = s.Template.Labels // shared, so that what a creation adds to the one is in the other
	}
	point(&s.CompletionMode, batchv1.NonIndexedCompletion)
	point(&s.Suspend, false)
	if s.PodFailurePolicy != nil {
		point(&s.PodReplacementPolicy, batchv1.Failed)
	}
	point(&s.PodReplacementPolicy, batchv1.TerminatingOrFailed)
	point(&s.ManualSelector, false)
}

// JobSpec defaults what holds for jobs and for the templates of jobs.
func JobSpec(s *batchv1.JobSpec) {
	PodSpec(&s.Template.Spec)
	if s.PodFailurePolicy == nil {
		return
	}
	for i := range s.PodFailurePolicy.Rules {
		for j := range s.PodFailurePolicy.Rules[i].OnPodConditions {
			set(&s.PodFailurePolicy.Rules[i].OnPodConditions[j].Status, corev1.ConditionTrue)
		}
	}
}
