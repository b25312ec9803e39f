// Package deployment rolls a Deployment's template out over ReplicaSets.
//
// Its invariant: during a rolling update there are never more than replicas +
// maxSurge pods asked for and never fewer than replicas - maxUnavailable
// available ones given up.
package deployment

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	appslisters "k8s.io/client-go/listers/apps/v1"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/pods"
	"skein.dev/skein/controllers/run"
)

// Controller reconciles Deployments.
type Controller struct {
	kit    component.Kit
	lister appslisters.DeploymentLister
	sets   cache.SharedIndexInformer
	pods   cache.SharedIndexInformer
	ledger *run.Ledger
}

// New takes its informers from kit.
func New(kit component.Kit) (run.Controller, error) {
	apps := kit.Informers.Apps().V1()
	c := &Controller{
		kit: kit, lister: apps.Deployments().Lister(),
		sets: apps.ReplicaSets().Informer(),
		pods: kit.Informers.Core().V1().Pods().Informer(),
	}
	c.ledger = run.NewLedger(c.sets)
	for _, inf := range []cache.SharedIndexInformer{c.sets, c.pods} {
		if err := run.IndexByOwner(inf); err != nil {
			return run.Controller{}, err
		}
	}
	return run.Controller{
		Name: "deployment-controller",
		Reads: []run.Source{
			{Informer: apps.Deployments().Informer()},
			{Informer: c.sets, Keys: c.keysOfSet},
			{Informer: c.pods, Keys: c.keysOfPod, Changed: pods.Changed},
		},
		Writes:    []string{"replicasets.apps", "deployments.apps", "deployments.apps/status"},
		Workers:   4,
		Reconcile: c.reconcile,
		Reset:     c.ledger.Reset,
	}, nil
}

func (c *Controller) keysOfSet(obj any) []run.Key {
	rs, ok := obj.(*appsv1.ReplicaSet)
	if !ok {
		return nil
	}
	if metav1.GetControllerOfNoCopy(rs) != nil {
		return run.OwnerKeys("Deployment")(rs)
	}
	all, err := c.lister.Deployments(rs.Namespace).List(labels.Everything())
	if err != nil { // a lister over a store never fails
		return nil
	}
	var keys []run.Key
	for _, d := range all {
		sel, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
		if err == nil && !sel.Empty() && sel.Matches(labels.Set(rs.Labels)) {
			keys = append(keys, run.Key{Namespace: d.Namespace, Name: d.Name})
		}
	}
	return keys
}

// keysOfPod wakes only a Recreate that waits for the old pods to be gone; all
// else arrives through the status of the sets.
func (c *Controller) keysOfPod(obj any) []run.Key {
	pod, ok := obj.(*corev1.Pod)
	if !ok || (pod.DeletionTimestamp == nil && !pods.Finished(pod)) {
		return nil
	}
	ref := metav1.GetControllerOfNoCopy(pod)
	if ref == nil || ref.Kind != "ReplicaSet" {
		return nil
	}
	set, ok, err := c.sets.GetIndexer().GetByKey(pod.Namespace + "/" + ref.Name)
	if err != nil || !ok {
		return nil
	}
	keys := run.OwnerKeys("Deployment")(set)
	if len(keys) == 0 {
		return nil
	}
	d, err := c.lister.Deployments(keys[0].Namespace).Get(keys[0].Name)
	if err != nil || d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
		return nil
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	d, err := c.lister.Deployments(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read deployment: %w", err)
	}
	if !c.ledger.Settled(key) {
		return run.Unsettled, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil || selector.Empty() {
		return 0, nil //nolint:nilerr // validation refuses such deployments; trying again cannot help
	}
	sets, err := c.claim(ctx, d, selector)
	if err != nil {
		return 0, err
	}
	plan := Decide(d, sets, c.oldPodsRun(d, sets), time.Now())
	return plan.After, c.apply(ctx, key, d, plan)
}

// oldPodsRun reports whether pods of an older template still run, for Recreate.
func (c *Controller) oldPodsRun(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) bool {
	fresh := newest(d, sets)
	for _, s := range sets {
		if fresh != nil && s.UID == fresh.UID {
			continue
		}
		for _, o := range run.ControlledBy(c.pods, s.UID) {
			if p, ok := o.(*corev1.Pod); ok && !pods.Finished(p) {
				return true
			}
		}
	}
	return false
}

// apply writes a plan, sets first: a status must not speak of what failed.
func (c *Controller) apply(ctx context.Context, key run.Key, d *appsv1.Deployment, plan Plan) error {
	client := c.kit.Client.AppsV1()
	for _, u := range plan.Updates {
		if _, err := client.ReplicaSets(d.Namespace).Update(ctx, u.Set, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("scale replicaset %s: %w", u.Set.Name, err)
		}
		if u.To != u.From {
			verb := "down"
			if u.To > u.From {
				verb = "up"
			}
			c.kit.Recorder.Eventf(d, u.Set, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaling",
				"Scaled %s replica set %s from %d to %d", verb, u.Set.Name, u.From, u.To)
		}
	}
	if plan.Create != nil {
		collided, err := c.create(ctx, key, d, plan.Create)
		if err != nil {
			return err
		}
		if collided {
			n := int32(1)
			if d.Status.CollisionCount != nil {
				n += *d.Status.CollisionCount
			}
			plan.Status = *d.Status.DeepCopy()
			plan.Status.CollisionCount = &n
		}
	}
	for _, s := range plan.Delete {
		err := client.ReplicaSets(d.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID}})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete old replicaset %s: %w", s.Name, err)
		}
	}
	d, err := c.annotate(ctx, d, plan.Revision)
	if err != nil {
		return err
	}
	return c.updateStatus(ctx, d, plan.Status)
}

// create makes the new set; collided means that another set has its name.
func (c *Controller) create(ctx context.Context, key run.Key, d *appsv1.Deployment, rs *appsv1.ReplicaSet) (collided bool, err error) {
	made, err := c.kit.Client.AppsV1().ReplicaSets(d.Namespace).Create(ctx, rs, metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err):
		have, getErr := c.kit.Client.AppsV1().ReplicaSets(d.Namespace).Get(ctx, rs.Name, metav1.GetOptions{})
		if getErr != nil {
			return false, fmt.Errorf("read replicaset %s: %w", rs.Name, getErr)
		}
		if metav1.IsControlledBy(have, d) && sameTemplate(&have.Spec.Template, &d.Spec.Template) {
			return false, nil // ours, from a try whose answer was lost
		}
		return true, nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return false, nil
	case err != nil:
		c.kit.Recorder.Eventf(d, nil, corev1.EventTypeWarning, "ReplicaSetCreateError", "Create",
			"Failed to create new replica set %q: %v", rs.Name, err)
		return false, fmt.Errorf("create replicaset: %w", err)
	}
	c.ledger.Created(key, made)
	if n := *rs.Spec.Replicas; n > 0 {
		c.kit.Recorder.Eventf(d, made, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaling",
			"Scaled up replica set %s from 0 to %d", made.Name, n)
	}
	return false, nil
}

// annotate returns the deployment as it is with the revision on record.
func (c *Controller) annotate(ctx context.Context, d *appsv1.Deployment, revision string) (*appsv1.Deployment, error) {
	if revision == "" || d.Annotations[RevisionAnnotation] == revision {
		return d, nil
	}
	up := d.DeepCopy()
	metav1.SetMetaDataAnnotation(&up.ObjectMeta, RevisionAnnotation, revision)
	got, err := c.kit.Client.AppsV1().Deployments(d.Namespace).Update(ctx, up, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) { // a newer one: its event comes
		return nil, err //nolint:wrapcheck // the loop looks at the kind
	}
	if apierrors.IsNotFound(err) {
		return d, nil
	}
	if err != nil {
		return nil, fmt.Errorf("set revision: %w", err)
	}
	return got, nil
}

func (c *Controller) updateStatus(ctx context.Context, d *appsv1.Deployment, status appsv1.DeploymentStatus) error {
	if equality.Semantic.DeepEqual(d.Status, status) {
		return nil
	}
	up := d.DeepCopy()
	up.Status = status
	_, err := c.kit.Client.AppsV1().Deployments(d.Namespace).UpdateStatus(ctx, up, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) { // a newer one: its event comes
		return err //nolint:wrapcheck // the loop looks at the kind
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update deployment status: %w", err)
	}
	return nil
}

// claim returns the deployment's sets, adopting orphans and releasing those
// that do not match any more.
func (c *Controller) claim(ctx context.Context, d *appsv1.Deployment, selector labels.Selector) ([]*appsv1.ReplicaSet, error) {
	owned, orphan := run.Owned(c.sets, d)
	var mine []*appsv1.ReplicaSet
	for _, o := range owned {
		rs, ok := o.(*appsv1.ReplicaSet)
		if !ok {
			continue
		}
		if selector.Matches(labels.Set(rs.Labels)) || d.DeletionTimestamp != nil {
			mine = append(mine, rs)
			continue
		}
		if err := c.setOwner(ctx, rs, map[string]any{"$patch": "delete", "uid": d.UID}); err != nil {
			return nil, err
		}
	}
	if d.DeletionTimestamp != nil {
		return mine, nil
	}
	for _, o := range orphan {
		rs, ok := o.(*appsv1.ReplicaSet)
		if !ok || rs.DeletionTimestamp != nil || !selector.Matches(labels.Set(rs.Labels)) {
			continue
		}
		live, err := c.kit.Client.AppsV1().Deployments(d.Namespace).Get(ctx, d.Name, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("read deployment before adoption: %w", err)
		}
		if live.UID != d.UID || live.DeletionTimestamp != nil {
			break
		}
		if err := c.setOwner(ctx, rs, *metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))); err != nil {
			return nil, err
		}
		mine = append(mine, rs)
	}
	return mine, nil
}

func (c *Controller) setOwner(ctx context.Context, rs *appsv1.ReplicaSet, ref any) error {
	b, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": rs.UID, "ownerReferences": []any{ref}}})
	if err != nil {
		return fmt.Errorf("encode owner patch: %w", err)
	}
	_, err = c.kit.Client.AppsV1().ReplicaSets(rs.Namespace).Patch(ctx, rs.Name, types.StrategicMergePatchType, b, metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsInvalid(err) {
		return fmt.Errorf("change owner of replicaset %s: %w", rs.Name, err)
	}
	return nil
}
