package defaulting

import (
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// CronJob defaults a job that repeats: runs may overlap, three good and one
// bad are remembered.
func CronJob(c *batchv1.CronJob) {
	s := &c.Spec
	set(&s.ConcurrencyPolicy, batchv1.AllowConcurrent)
	point(&s.Suspend, false)
	point(&s.SuccessfulJobsHistoryLimit, 3)
	point(&s.FailedJobsHistoryLimit, 1)
	JobSpec(&s.JobTemplate.Spec)
}

// LimitRange derives the defaults of containers from one another: the limit
// from the maximum, the request from the limit, and else from the minimum.
func LimitRange(l *corev1.LimitRange) {
	for i := range l.Spec.Limits {
		item := &l.Spec.Limits[i]
		if item.Type == corev1.LimitTypeContainer {
			inherit(&item.Default, item.Max)
			inherit(&item.DefaultRequest, item.Default)
			inherit(&item.DefaultRequest, item.Min)
		}
		for _, list := range []corev1.ResourceList{item.Max, item.Min, item.Default, item.DefaultRequest, item.MaxLimitRequestRatio} {
			resourceList(list)
		}
	}
}

// inherit adds to *list what only from has.
func inherit(list *corev1.ResourceList, from corev1.ResourceList) {
	if *list == nil {
		*list = corev1.ResourceList{}
	}
	for name, q := range from {
		if _, ok := (*list)[name]; !ok {
			(*list)[name] = q.DeepCopy()
		}
	}
}

// ResourceQuota rounds what a quota counts.
func ResourceQuota(q *corev1.ResourceQuota) {
	resourceList(q.Spec.Hard)
	resourceList(q.Status.Hard)
	resourceList(q.Status.Used)
}
