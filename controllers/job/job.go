// Package job runs pods until enough of them have succeeded.
//
// Its invariant: every pod's end is counted once and only once, whatever
// becomes of the pod, because its finalizer stays until the end is in the
// job's status.
package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	batchlisters "k8s.io/client-go/listers/batch/v1"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/pods"
	"skein.dev/skein/controllers/run"
)

func kind() schema.GroupVersionKind { return batchv1.SchemeGroupVersion.WithKind("Job") }

// byTracking finds the pods that carry the finalizer by their job's name.
const byTracking = "job-tracking"

// Controller reconciles Jobs.
type Controller struct {
	kit    component.Kit
	jobs   batchlisters.JobLister
	pods   cache.SharedIndexInformer
	ledger *run.Ledger // of pods
	own    *run.Ledger // of jobs
}

// New takes its informers from kit.
func New(kit component.Kit) (run.Controller, error) {
	jobs, podInf := kit.Informers.Batch().V1().Jobs(), kit.Informers.Core().V1().Pods().Informer()
	if err := run.IndexByOwner(podInf); err != nil {
		return run.Controller{}, err
	}
	if err := run.IndexBy(podInf, byTracking, trackedBy); err != nil {
		return run.Controller{}, err
	}
	c := &Controller{kit: kit, jobs: jobs.Lister(), pods: podInf, ledger: run.NewLedger(podInf), own: run.NewLedger(jobs.Informer())}
	return run.Controller{
		Name: "job-controller",
		Reads: []run.Source{
			{Informer: jobs.Informer()},
			{Informer: podInf, Keys: c.keysOfPod, Changed: podMatters},
		},
		Writes:    []string{"pods", "jobs.batch/status"},
		Workers:   4,
		Reconcile: c.reconcile,
		Reset:     func() { c.ledger.Reset(); c.own.Reset() },
	}, nil
}

func podMatters(before, after any) bool {
	a, ok := before.(*corev1.Pod)
	b, ok2 := after.(*corev1.Pod)
	return !ok || !ok2 || pods.Changed(before, after) || !slices.Equal(a.Finalizers, b.Finalizers) ||
		b.Spec.RestartPolicy == corev1.RestartPolicyOnFailure // restarts count
}

func trackedBy(obj any) []string {
	p, ok := obj.(*corev1.Pod)
	if !ok || !tracked(p) {
		return nil
	}
	name := ""
	if ref := metav1.GetControllerOfNoCopy(p); ref != nil && ref.Kind == kind().Kind {
		name = ref.Name
	}
	return []string{p.Namespace + "/" + name}
}

// keysOfPod is the pod's job; for a pod without one every job that may adopt
// it, and if it is held by the finalizer the key without a name, which frees it.
func (c *Controller) keysOfPod(obj any) []run.Key {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return nil
	}
	if metav1.GetControllerOfNoCopy(p) != nil {
		return run.OwnerKeys(kind().Kind)(p)
	}
	var keys []run.Key
	if tracked(p) {
		keys = append(keys, run.Key{Namespace: p.Namespace})
	}
	if p.DeletionTimestamp != nil {
		return keys
	}
	jobs, err := c.jobs.Jobs(p.Namespace).List(everything())
	if err != nil { // a lister over a store never fails
		return keys
	}
	for _, j := range jobs {
		if selects(j, p) {
			keys = append(keys, run.Key{Namespace: j.Namespace, Name: j.Name})
		}
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	if !c.ledger.Settled(key) || !c.own.Settled(key) {
		return run.Unsettled, nil
	}
	var job *batchv1.Job
	if key.Name != "" {
		got, err := c.jobs.Jobs(key.Namespace).Get(key.Name)
		if err != nil && !apierrors.IsNotFound(err) {
			return 0, fmt.Errorf("read job: %w", err)
		}
		if err == nil {
			job = got
		}
	}
	if err := c.free(ctx, key, job); err != nil {
		return 0, err
	}
	if job == nil || Finished(job) || (job.Spec.ManagedBy != nil && *job.Spec.ManagedBy != batchv1.JobControllerName) {
		return 0, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(job.Spec.Selector)
	if err != nil {
		return 0, nil //nolint:nilerr // validation refuses such jobs; trying again cannot help
	}
	claimer := pods.Claimer{
		Client: c.kit.Client.CoreV1(), Informer: c.pods, Kind: kind(), Finalizer: batchv1.JobTrackingFinalizer,
		Live: func(ctx context.Context) (metav1.Object, error) {
			return c.kit.Client.BatchV1().Jobs(job.Namespace).Get(ctx, job.Name, metav1.GetOptions{})
		},
	}
	mine, err := claimer.Claim(ctx, job, selector)
	if err != nil {
		return 0, err
	}
	work := Decide(job, mine, time.Now())
	made, gone, err := c.apply(ctx, key, job, work)
	return work.After, errors.Join(err, c.track(ctx, key, job, work, made, gone))
}

// free takes the finalizer off pods whose job is gone or finished: nobody
// counts them any more. job is nil when there is none of the key's name.
func (c *Controller) free(ctx context.Context, key run.Key, job *batchv1.Job) error {
	for _, o := range run.By(c.pods, byTracking, key.String()) {
		p, ok := o.(*corev1.Pod)
		if !ok {
			continue
		}
		ref := metav1.GetControllerOfNoCopy(p)
		if job != nil && ref != nil && ref.UID == job.UID && !Finished(job) {
			continue
		}
		if ref == nil && c.adoptable(p) {
			continue
		}
		if err := c.release(ctx, key, p); err != nil {
			return err
		}
	}
	return nil
}

// adoptable reports whether a job may still take the pod.
func (c *Controller) adoptable(p *corev1.Pod) bool {
	jobs, err := c.jobs.Jobs(p.Namespace).List(everything())
	return err == nil && p.DeletionTimestamp == nil && slices.ContainsFunc(jobs, func(j *batchv1.Job) bool {
		return j.DeletionTimestamp == nil && !Finished(j) && selects(j, p)
	})
}

// apply makes and deletes pods and tells how many it made and which it
// deleted, whatever failed.
func (c *Controller) apply(ctx context.Context, key run.Key, job *batchv1.Job, work *Work) (made int, gone []*corev1.Pod, err error) {
	var mu sync.Mutex // guards made and gone
	err = errors.Join(
		pods.Each(work.Delete, func(p *corev1.Pod) error {
			if err := c.delete(ctx, key, job, p, work.Forget); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			gone = append(gone, p)
			return nil
		}),
		pods.Each(work.Create, func(p *corev1.Pod) error {
			ok, err := c.create(ctx, key, job, p)
			mu.Lock()
			defer mu.Unlock()
			if ok {
				made++
			}
			return err
		}))
	return made, gone, err
}

func (c *Controller) create(ctx context.Context, key run.Key, job *batchv1.Job, p *corev1.Pod) (bool, error) {
	got, err := c.kit.Client.CoreV1().Pods(job.Namespace).Create(ctx, p, metav1.CreateOptions{})
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return false, nil
	}
	if err != nil {
		run.Event(c.kit.Recorder, job, nil, "FailedCreate", "Error creating: %v", err)
		return false, fmt.Errorf("create pod: %w", err)
	}
	c.ledger.Created(key, got)
	run.Event(c.kit.Recorder, job, got, "SuccessfulCreate", "Created pod: %v", got.Name)
	return true, nil
}

func (c *Controller) delete(ctx context.Context, key run.Key, job *batchv1.Job, p *corev1.Pod, forget bool) error {
	if forget {
		if err := c.release(ctx, key, p); err != nil {
			return err
		}
	}
	err := c.kit.Client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err != nil {
		run.Event(c.kit.Recorder, job, nil, "FailedDelete", "Error deleting: %v", err)
		return fmt.Errorf("delete pod %s: %w", p.Name, err)
	}
	c.ledger.Deleted(key, p)
	run.Event(c.kit.Recorder, job, p, "SuccessfulDelete", "Deleted pod: %v", p.Name)
	return nil
}

// release takes the tracking finalizer off a pod.
func (c *Controller) release(ctx context.Context, key run.Key, p *corev1.Pod) error {
	if !tracked(p) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": p.UID, "$deleteFromPrimitiveList/finalizers": []string{batchv1.JobTrackingFinalizer},
	}})
	if err != nil {
		return fmt.Errorf("encode finalizer patch: %w", err)
	}
	got, err := c.kit.Client.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("release pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	c.ledger.Wrote(key, got)
	return nil
}

// track writes the status, takes off finalizers, and writes it again.
func (c *Controller) track(ctx context.Context, key run.Key, job *batchv1.Job, work *Work, made int, gone []*corev1.Pod) error {
	status, release := work.Track(made, gone)
	var err error
	if status != nil {
		if job, err = c.updateStatus(ctx, key, job, status); err != nil || job == nil {
			return err
		}
	}
	var mu sync.Mutex // guards released
	var released []*corev1.Pod
	rmErr := pods.Each(release, func(p *corev1.Pod) error {
		if err := c.release(ctx, key, p); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		released = append(released, p)
		return nil
	})
	status, end := work.Settle(released)
	if status != nil {
		if job, err = c.updateStatus(ctx, key, job, status); err != nil || job == nil {
			return errors.Join(rmErr, err)
		}
	}
	for _, reason := range work.events {
		run.Event(c.kit.Recorder, job, nil, reason, "Job %s", map[string]string{"Suspended": "suspended", "Resumed": "resumed"}[reason])
	}
	switch {
	case end == nil:
	case end.Type == batchv1.JobComplete:
		run.Event(c.kit.Recorder, job, nil, "Completed", "Job completed")
	default:
		c.kit.Recorder.Eventf(job, nil, corev1.EventTypeWarning, end.Reason, "Failed", "%s", end.Message)
	}
	return rmErr
}

// updateStatus returns nil when the job is gone.
func (c *Controller) updateStatus(ctx context.Context, key run.Key, job *batchv1.Job, status *batchv1.JobStatus) (*batchv1.Job, error) {
	up := job.DeepCopy()
	up.Status = *status
	got, err := c.kit.Client.BatchV1().Jobs(job.Namespace).UpdateStatus(ctx, up, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // documented: gone
	}
	if err != nil {
		return nil, fmt.Errorf("update job status: %w", err)
	}
	c.own.Wrote(key, got)
	return got, nil
}
