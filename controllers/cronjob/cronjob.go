// Package cronjob starts jobs by the clock.
//
// Its invariant: each scheduled time starts at most one job, because the
// job's name is made of the time.
package cronjob

import (
	"context"
	"fmt"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	batchlisters "k8s.io/client-go/listers/batch/v1"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/run"
)

// Controller reconciles CronJobs.
type Controller struct {
	kit    component.Kit
	crons  batchlisters.CronJobLister
	jobs   cache.SharedIndexInformer
	ledger *run.Ledger // of jobs
	own    *run.Ledger // of cron jobs
}

// New takes its informers from kit.
func New(kit component.Kit) (run.Controller, error) {
	batch := kit.Informers.Batch().V1()
	c := &Controller{kit: kit, crons: batch.CronJobs().Lister(), jobs: batch.Jobs().Informer()}
	c.ledger, c.own = run.NewLedger(c.jobs), run.NewLedger(batch.CronJobs().Informer())
	if err := run.IndexByOwner(c.jobs); err != nil {
		return run.Controller{}, err
	}
	return run.Controller{
		Name: "cronjob-controller",
		Reads: []run.Source{
			{Informer: batch.CronJobs().Informer()},
			{Informer: c.jobs, Keys: run.OwnerKeys("CronJob"), Changed: jobMatters},
		},
		Writes:    []string{"jobs.batch", "cronjobs.batch/status"},
		Reconcile: c.reconcile,
		Reset:     func() { c.ledger.Reset(); c.own.Reset() },
	}, nil
}

// jobMatters: only the end of a job is of interest.
func jobMatters(before, after any) bool {
	a, ok := before.(*batchv1.Job)
	b, ok2 := after.(*batchv1.Job)
	if !ok || !ok2 {
		return true
	}
	_, was := ended(a)
	_, is := ended(b)
	return was != is || a.DeletionTimestamp != b.DeletionTimestamp || !equality.Semantic.DeepEqual(a.OwnerReferences, b.OwnerReferences)
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	cj, err := c.crons.CronJobs(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read cronjob: %w", err)
	}
	if !c.ledger.Settled(key) || !c.own.Settled(key) {
		return run.Unsettled, nil
	}
	jobs := c.jobsOf(cj)
	missing, err := c.missing(ctx, cj, jobs)
	if err != nil {
		return 0, err
	}
	plan := Decide(cj, jobs, missing, time.Now())
	for _, n := range plan.Notes {
		kind := corev1.EventTypeNormal
		if strings.HasPrefix(n.Reason, "Un") || strings.HasPrefix(n.Reason, "TooMany") {
			kind = corev1.EventTypeWarning
		}
		c.kit.Recorder.Eventf(cj, nil, kind, n.Reason, "Schedule", "%s", n.Message)
	}
	for _, j := range plan.Delete {
		if err := c.delete(ctx, key, cj, j); err != nil {
			return 0, err
		}
	}
	if plan.Start != nil {
		ref, err := c.start(ctx, key, cj, plan.Start)
		if err != nil {
			return 0, err
		}
		if ref != nil {
			plan.Status.Active = append(plan.Status.Active, *ref)
		}
	}
	return plan.After, c.updateStatus(ctx, key, cj, plan.Status)
}

func (c *Controller) jobsOf(cj *batchv1.CronJob) []*batchv1.Job {
	var out []*batchv1.Job
	for _, o := range run.ControlledBy(c.jobs, cj.UID) {
		if j, ok := o.(*batchv1.Job); ok {
			out = append(out, j)
		}
	}
	return out
}

// missing asks the API about active jobs that the informer does not show.
func (c *Controller) missing(ctx context.Context, cj *batchv1.CronJob, jobs []*batchv1.Job) (map[types.UID]bool, error) {
	have := map[types.UID]bool{}
	for _, j := range jobs {
		have[j.UID] = true
	}
	out := map[types.UID]bool{}
	for _, r := range cj.Status.Active {
		if have[r.UID] {
			continue
		}
		got, err := c.kit.Client.BatchV1().Jobs(cj.Namespace).Get(ctx, r.Name, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("read job %s: %w", r.Name, err)
		}
		out[r.UID] = err != nil || got.UID != r.UID
	}
	return out, nil
}

func (c *Controller) delete(ctx context.Context, key run.Key, cj *batchv1.CronJob, j *batchv1.Job) error {
	background := metav1.DeletePropagationBackground
	err := c.kit.Client.BatchV1().Jobs(j.Namespace).Delete(ctx, j.Name, metav1.DeleteOptions{
		PropagationPolicy: &background, Preconditions: &metav1.Preconditions{UID: &j.UID},
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err != nil {
		run.Event(c.kit.Recorder, cj, nil, "FailedDelete", "Deleted job: %v", err)
		return fmt.Errorf("delete job %s: %w", j.Name, err)
	}
	c.ledger.Deleted(key, j)
	run.Event(c.kit.Recorder, cj, nil, "SuccessfulDelete", "Deleted job %v", j.Name)
	return nil
}

// start makes the job; one of the name that is ours already was made before
// its status could be written. Nil: the name is a stranger's.
func (c *Controller) start(ctx context.Context, key run.Key, cj *batchv1.CronJob, j *batchv1.Job) (*corev1.ObjectReference, error) {
	client := c.kit.Client.BatchV1().Jobs(cj.Namespace)
	made, err := client.Create(ctx, j, metav1.CreateOptions{})
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil, nil //nolint:nilnil // documented: nothing to list
	case apierrors.IsAlreadyExists(err):
		if made, err = client.Get(ctx, j.Name, metav1.GetOptions{}); err != nil {
			return nil, fmt.Errorf("read job %s: %w", j.Name, err)
		}
		if _, over := ended(made); over || !metav1.IsControlledBy(made, cj) {
			return nil, nil //nolint:nilnil // documented: nothing to list
		}
	case err != nil:
		run.Event(c.kit.Recorder, cj, nil, "FailedCreate", "Error creating job: %v", err)
		return nil, fmt.Errorf("create job %s: %w", j.Name, err)
	default:
		c.ledger.Created(key, made)
		run.Event(c.kit.Recorder, cj, nil, "SuccessfulCreate", "Created job %v", made.Name)
	}
	return &corev1.ObjectReference{
		Kind: "Job", APIVersion: batchv1.SchemeGroupVersion.String(), Name: made.Name, Namespace: made.Namespace,
		UID: made.UID, ResourceVersion: made.ResourceVersion,
	}, nil
}

func (c *Controller) updateStatus(ctx context.Context, key run.Key, cj *batchv1.CronJob, status batchv1.CronJobStatus) error {
	if equality.Semantic.DeepEqual(cj.Status, status) {
		return nil
	}
	up := cj.DeepCopy()
	up.Status = status
	got, err := c.kit.Client.BatchV1().CronJobs(cj.Namespace).UpdateStatus(ctx, up, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("update cronjob status: %w", err)
	}
	c.own.Wrote(key, got)
	return nil
}
