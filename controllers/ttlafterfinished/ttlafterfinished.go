// Package ttlafterfinished deletes finished jobs when their time is over.
//
// Its invariant: a job goes only after the API confirmed that it has finished
// and that its time is over (KEP-592).
package ttlafterfinished

import (
	"context"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	batchlisters "k8s.io/client-go/listers/batch/v1"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/run"
)

// Controller deletes jobs.
type Controller struct {
	kit  component.Kit
	jobs batchlisters.JobLister
}

// New takes its informer from kit.
func New(kit component.Kit) (run.Controller, error) {
	jobs := kit.Informers.Batch().V1().Jobs()
	c := &Controller{kit: kit, jobs: jobs.Lister()}
	return run.Controller{
		Name:      "ttl-after-finished-controller",
		Reads:     []run.Source{{Informer: jobs.Informer(), Keys: concerned}},
		Writes:    []string{"jobs.batch"},
		Reconcile: c.reconcile,
	}, nil
}

// concerned drops the jobs without a limit or an end.
func concerned(obj any) []run.Key {
	if j, ok := obj.(*batchv1.Job); ok {
		if _, ok := Expires(j); ok && j.DeletionTimestamp == nil {
			return []run.Key{{Namespace: j.Namespace, Name: j.Name}}
		}
	}
	return nil
}

// Expires is when the job's time is over; false: it has no limit or runs.
func Expires(j *batchv1.Job) (time.Time, bool) {
	if j.Spec.TTLSecondsAfterFinished == nil {
		return time.Time{}, false
	}
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue && !c.LastTransitionTime.IsZero() {
			return c.LastTransitionTime.Add(time.Duration(*j.Spec.TTLSecondsAfterFinished) * time.Second), true
		}
	}
	return time.Time{}, false
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	j, err := c.jobs.Jobs(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read job: %w", err)
	}
	t, ok := Expires(j)
	if !ok || j.DeletionTimestamp != nil {
		return 0, nil
	}
	if left := time.Until(t); left > 0 {
		return left, nil
	}
	client := c.kit.Client.BatchV1().Jobs(key.Namespace)
	live, err := client.Get(ctx, key.Name, metav1.GetOptions{}) // the limit may have been raised
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read job again: %w", err)
	}
	if t, ok := Expires(live); !ok || time.Until(t) > 0 {
		return max(0, time.Until(t)), nil
	}
	foreground := metav1.DeletePropagationForeground
	err = client.Delete(ctx, key.Name, metav1.DeleteOptions{PropagationPolicy: &foreground, Preconditions: &metav1.Preconditions{UID: &live.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return 0, fmt.Errorf("delete finished job: %w", err)
	}
	return 0, nil
}
