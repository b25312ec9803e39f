package job

import (
	"fmt"
	"slices"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"skein.dev/skein/controllers/pods"
)

const indexVariable = "JOB_COMPLETION_INDEX"

// PodFor is a pod of the job; index is none where indexes do not count.
// replaces is the failed pod of the same index, if any.
func PodFor(job *batchv1.Job, index int, replaces *corev1.Pod) *corev1.Pod {
	p := pods.FromTemplate(job, kind(), &job.Spec.Template)
	if !slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer) {
		p.Finalizers = append(p.Finalizers, batchv1.JobTrackingFinalizer)
	}
	if index == none {
		return p
	}
	number := strconv.Itoa(index)
	p.GenerateName = generateName(job.Name, number)
	p.Name = pods.Name(p.GenerateName)
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Annotations[batchv1.JobCompletionIndexAnnotation] = number
	p.Labels[batchv1.JobCompletionIndexAnnotation] = number
	p.Spec.Hostname = fmt.Sprintf("%s-%d", job.Name, index)
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			addIndex(&list[i])
		}
	}
	if job.Spec.BackoffLimitPerIndex != nil {
		countFailures(job, p, replaces)
	}
	return p
}

// maxBase leaves room for the five random characters of a name of 63.
const maxBase = 58

func generateName(job, number string) string {
	tail := "-" + number + "-"
	return job[:min(len(job), maxBase-len(tail))] + tail
}

func addIndex(c *corev1.Container) {
	if slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == indexVariable }) {
		return
	}
	c.Env = append(c.Env, corev1.EnvVar{Name: indexVariable, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{FieldPath: fmt.Sprintf("metadata.labels['%s']", batchv1.JobCompletionIndexAnnotation)},
	}})
}

// countFailures hands the index's failures on from pod to pod: its limit is
// counted there, not in the job's status.
func countFailures(job *batchv1.Job, p, replaces *corev1.Pod) {
	count, ignored := 0, 0
	if replaces != nil {
		count, ignored = counted(replaces, batchv1.JobIndexFailureCountAnnotation), counted(replaces, batchv1.JobIndexIgnoredFailureCountAnnotation)
		if Match(job.Spec.PodFailurePolicy, replaces).Counts {
			count++
		} else {
			ignored++
		}
	}
	p.Annotations[batchv1.JobIndexFailureCountAnnotation] = strconv.Itoa(count)
	if ignored > 0 {
		p.Annotations[batchv1.JobIndexIgnoredFailureCountAnnotation] = strconv.Itoa(ignored)
	}
}

func tracked(p *corev1.Pod) bool { return slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer) }

// failed reports whether a pod counts as failed. One that is being deleted
// does, unless the job replaces only those that have fully ended.
func failed(job *batchv1.Job, p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodFailed ||
		(!patient(job) && p.DeletionTimestamp != nil && p.Status.Phase != corev1.PodSucceeded)
}

// patient jobs replace a pod only after it has ended.
func patient(job *batchv1.Job) bool {
	return job.Spec.PodReplacementPolicy != nil && *job.Spec.PodReplacementPolicy == batchv1.Failed
}

func indexed(job *batchv1.Job) bool {
	return job.Spec.CompletionMode != nil && *job.Spec.CompletionMode == batchv1.IndexedCompletion && job.Spec.Completions != nil
}

func suspended(job *batchv1.Job) bool { return job.Spec.Suspend != nil && *job.Spec.Suspend }
