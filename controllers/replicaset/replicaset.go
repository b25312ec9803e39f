// Package replicaset keeps as many pods of a template as a ReplicaSet asks for.
//
// Its invariant: it decides only on a pod list that shows all of its own
// earlier writes, so it never makes a pod twice.
package replicaset

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	appslisters "k8s.io/client-go/listers/apps/v1"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/pods"
	"skein.dev/skein/controllers/run"
)

// Controller reconciles ReplicaSets.
type Controller struct {
	kit    component.Kit
	sets   appslisters.ReplicaSetLister
	pods   cache.SharedIndexInformer
	ledger *run.Ledger
}

// New takes its informers from kit.
func New(kit component.Kit) (run.Controller, error) {
	sets := kit.Informers.Apps().V1().ReplicaSets()
	podInf := kit.Informers.Core().V1().Pods().Informer()
	if err := run.IndexByOwner(podInf); err != nil {
		return run.Controller{}, err
	}
	if err := run.IndexByOwner(sets.Informer()); err != nil {
		return run.Controller{}, err
	}
	c := &Controller{kit: kit, sets: sets.Lister(), pods: podInf, ledger: run.NewLedger(podInf)}
	return run.Controller{
		Name: "replicaset-controller",
		Reads: []run.Source{
			{Informer: sets.Informer()},
			{Informer: podInf, Keys: c.keysOfPod, Changed: pods.Changed},
		},
		Writes:    []string{"pods", "replicasets.apps/status"},
		Workers:   4,
		Reconcile: c.reconcile,
		Reset:     c.ledger.Reset,
	}, nil
}

// keysOfPod is the pod's owner, or for an orphan every set that may adopt it.
func (c *Controller) keysOfPod(obj any) []run.Key {
	return pods.OwnerOr("ReplicaSet", func(p *corev1.Pod) []run.Key {
		sets, err := c.sets.GetPodReplicaSets(p)
		if err != nil { // none selects it
			return nil
		}
		return run.KeysOf(sets)
	})(obj)
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	rs, err := c.sets.ReplicaSets(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read replicaset: %w", err)
	}
	if !c.ledger.Settled(key) {
		return run.Unsettled, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil {
		return 0, nil //nolint:nilerr // validation refuses such sets; trying again cannot help
	}
	all, err := c.claimer(rs).Claim(ctx, rs, selector)
	if err != nil {
		return 0, err
	}
	active, terminating := split(all)
	var manageErr error
	if rs.DeletionTimestamp == nil {
		manageErr = c.manage(ctx, key, rs, active)
	}
	now := time.Now()
	status, after := Status(rs, active, terminating, now, manageErr)
	if err := c.updateStatus(ctx, rs, status); err != nil {
		return 0, err
	}
	return after, manageErr
}

func (c *Controller) claimer(rs *appsv1.ReplicaSet) pods.Claimer {
	return pods.Claimer{
		Client: c.kit.Client.CoreV1(), Informer: c.pods, Kind: appsv1.SchemeGroupVersion.WithKind("ReplicaSet"),
		Live: func(ctx context.Context) (metav1.Object, error) {
			return c.kit.Client.AppsV1().ReplicaSets(rs.Namespace).Get(ctx, rs.Name, metav1.GetOptions{})
		},
	}
}

func split(all []*corev1.Pod) (active, terminating []*corev1.Pod) {
	for _, p := range all {
		switch {
		case pods.Active(p):
			active = append(active, p)
		case p.DeletionTimestamp != nil && !pods.Finished(p):
			terminating = append(terminating, p)
		}
	}
	return active, terminating
}

// manage makes or deletes pods until their number is right.
func (c *Controller) manage(ctx context.Context, key run.Key, rs *appsv1.ReplicaSet, active []*corev1.Pod) error {
	diff := len(active) - int(wanted(rs))
	if diff < 0 {
		return pods.Burst(-diff, func() error { return c.create(ctx, key, rs) })
	}
	if diff == 0 {
		return nil
	}
	near := map[string]int{}
	for _, p := range c.related(rs) {
		near[p.Spec.NodeName]++
	}
	pods.SortForDeletion(active, near, time.Now())
	for _, p := range active[:min(diff, pods.MaxBurst)] {
		if err := c.delete(ctx, key, rs, p); err != nil {
			return err
		}
	}
	return nil
}

// related are the active pods of all sets with the same owner, so that
// scaling down during a rollout thins out crowded nodes.
func (c *Controller) related(rs *appsv1.ReplicaSet) []*corev1.Pod {
	sets := []*appsv1.ReplicaSet{rs}
	if ref := metav1.GetControllerOfNoCopy(rs); ref != nil {
		for _, o := range run.ControlledBy(c.kit.Informers.Apps().V1().ReplicaSets().Informer(), ref.UID) {
			if s, ok := o.(*appsv1.ReplicaSet); ok && s.UID != rs.UID {
				sets = append(sets, s)
			}
		}
	}
	var out []*corev1.Pod
	for _, s := range sets {
		for _, o := range run.ControlledBy(c.pods, s.UID) {
			if p, ok := o.(*corev1.Pod); ok && pods.Active(p) {
				out = append(out, p)
			}
		}
	}
	return out
}

func (c *Controller) create(ctx context.Context, key run.Key, rs *appsv1.ReplicaSet) error {
	pod := pods.FromTemplate(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), &rs.Spec.Template)
	made, err := c.kit.Client.CoreV1().Pods(rs.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		c.kit.Recorder.Eventf(rs, nil, corev1.EventTypeWarning, "FailedCreate", "Create", "Error creating: %v", err)
		return fmt.Errorf("create pod: %w", err)
	}
	c.ledger.Created(key, made)
	c.kit.Recorder.Eventf(rs, made, corev1.EventTypeNormal, "SuccessfulCreate", "Create", "Created pod: %v", made.Name)
	return nil
}

func (c *Controller) delete(ctx context.Context, key run.Key, rs *appsv1.ReplicaSet, p *corev1.Pod) error {
	err := c.kit.Client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &p.UID},
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err != nil {
		c.kit.Recorder.Eventf(rs, nil, corev1.EventTypeWarning, "FailedDelete", "Delete", "Error deleting: %v", err)
		return fmt.Errorf("delete pod %s: %w", p.Name, err)
	}
	c.ledger.Deleted(key, p)
	c.kit.Recorder.Eventf(rs, p, corev1.EventTypeNormal, "SuccessfulDelete", "Delete", "Deleted pod: %v", p.Name)
	return nil
}

func (c *Controller) updateStatus(ctx context.Context, rs *appsv1.ReplicaSet, status appsv1.ReplicaSetStatus) error {
	if equality.Semantic.DeepEqual(rs.Status, status) {
		return nil
	}
	up := rs.DeepCopy()
	up.Status = status
	_, err := c.kit.Client.AppsV1().ReplicaSets(rs.Namespace).UpdateStatus(ctx, up, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update replicaset status: %w", err)
	}
	return nil
}

func wanted(rs *appsv1.ReplicaSet) int32 {
	if rs.Spec.Replicas == nil {
		return 1
	}
	return *rs.Spec.Replicas
}
