// Package daemonset runs one pod of a template on every node that suits it.
//
// Its invariant: a node never has two pods of a set that count, and a rolling
// update never takes more than maxUnavailable nodes at a time.
package daemonset

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/pods"
	"skein.dev/skein/controllers/revision"
	"skein.dev/skein/controllers/run"
)

func kind() schema.GroupVersionKind { return appsv1.SchemeGroupVersion.WithKind("DaemonSet") }

// Controller reconciles DaemonSets.
type Controller struct {
	kit    component.Kit
	sets   appslisters.DaemonSetLister
	nodes  corelisters.NodeLister
	pods   cache.SharedIndexInformer
	ledger *run.Ledger
	keeper revision.Keeper
}

// New takes its informers from kit.
func New(kit component.Kit) (run.Controller, error) {
	apps, core := kit.Informers.Apps().V1(), kit.Informers.Core().V1()
	c := &Controller{
		kit: kit, sets: apps.DaemonSets().Lister(), nodes: core.Nodes().Lister(), pods: core.Pods().Informer(),
		keeper: revision.Keeper{Client: kit.Client.AppsV1(), Informer: apps.ControllerRevisions().Informer(), Kind: kind()},
	}
	c.ledger = run.NewLedger(c.pods)
	for _, inf := range []cache.SharedIndexInformer{c.pods, c.keeper.Informer} {
		if err := run.IndexByOwner(inf); err != nil {
			return run.Controller{}, err
		}
	}
	return run.Controller{
		Name: "daemonset-controller",
		Reads: []run.Source{
			{Informer: apps.DaemonSets().Informer()},
			{Informer: c.pods, Keys: c.keysOfPod, Changed: pods.Changed},
			{Informer: core.Nodes().Informer(), Keys: c.allKeys, Changed: nodeMatters},
			// Revisions are read, but what others do to them is no reason to
			// act: the next change of the set is.
			{Informer: c.keeper.Informer, Keys: func(any) []run.Key { return nil }},
		},
		Writes:    []string{"pods", "daemonsets.apps/status", "controllerrevisions.apps"},
		Reconcile: c.reconcile,
		Reset:     c.ledger.Reset,
	}, nil
}

func (c *Controller) keysOfPod(obj any) []run.Key {
	return pods.OwnerOr("DaemonSet", func(p *corev1.Pod) []run.Key {
		sets, err := c.sets.GetPodDaemonSets(p)
		if err != nil { // none selects it
			return nil
		}
		return run.KeysOf(sets)
	})(obj)
}

func (c *Controller) allKeys(any) []run.Key {
	all, err := c.sets.List(labels.Everything())
	if err != nil { // a lister over a store never fails
		return nil
	}
	return run.KeysOf(all)
}

func nodeMatters(before, after any) bool {
	a, ok := before.(*corev1.Node)
	b, ok2 := after.(*corev1.Node)
	return !ok || !ok2 || a.UID != b.UID || a.Spec.Unschedulable != b.Spec.Unschedulable ||
		!equality.Semantic.DeepEqual(a.Labels, b.Labels) || !equality.Semantic.DeepEqual(a.Spec.Taints, b.Spec.Taints)
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	ds, err := c.sets.DaemonSets(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read daemonset: %w", err)
	}
	if !c.ledger.Settled(key) {
		return run.Unsettled, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(ds.Spec.Selector)
	if err != nil || selector.Empty() || ds.DeletionTimestamp != nil {
		return 0, nil //nolint:nilerr // validation refuses such selectors; trying again cannot help
	}
	current, old, err := c.keeper.Current(ctx, ds, &ds.Spec.Template, ds.Status.CollisionCount)
	if errors.Is(err, revision.ErrCollision) {
		return 0, c.collided(ctx, ds)
	}
	if err != nil {
		return 0, err
	}
	mine, err := c.claimer(ds).Claim(ctx, ds, selector)
	if err != nil {
		return 0, err
	}
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		return 0, fmt.Errorf("list nodes: %w", err)
	}
	hash := current.Labels[appsv1.ControllerRevisionHashLabelKey]
	plan := Decide(ds, hash, nodes, mine, time.Now())
	if err := c.apply(ctx, key, ds, hash, plan); err != nil {
		return 0, err
	}
	if err := c.updateStatus(ctx, ds, plan.Status); err != nil {
		return 0, err
	}
	live := map[string]bool{}
	for _, p := range mine {
		live[p.Labels[appsv1.ControllerRevisionHashLabelKey]] = true
	}
	limit := 10
	if ds.Spec.RevisionHistoryLimit != nil {
		limit = int(*ds.Spec.RevisionHistoryLimit)
	}
	return plan.After, c.keeper.Prune(ctx, old, limit, live)
}

func (c *Controller) collided(ctx context.Context, ds *appsv1.DaemonSet) error {
	status := *ds.Status.DeepCopy()
	n := int32(1)
	if status.CollisionCount != nil {
		n += *status.CollisionCount
	}
	status.CollisionCount = &n
	return c.updateStatus(ctx, ds, status)
}

func (c *Controller) claimer(ds *appsv1.DaemonSet) pods.Claimer {
	return pods.Claimer{
		Client: c.kit.Client.CoreV1(), Informer: c.pods, Kind: kind(),
		Live: func(ctx context.Context) (metav1.Object, error) {
			return c.kit.Client.AppsV1().DaemonSets(ds.Namespace).Get(ctx, ds.Name, metav1.GetOptions{})
		},
	}
}

func (c *Controller) apply(ctx context.Context, key run.Key, ds *appsv1.DaemonSet, hash string, plan Plan) error {
	client := c.kit.Client.CoreV1().Pods(ds.Namespace)
	for _, p := range plan.Delete {
		err := client.Delete(ctx, p.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("delete pod %s: %w", p.Name, err)
		}
		c.ledger.Deleted(key, p)
		c.kit.Recorder.Eventf(ds, p, corev1.EventTypeNormal, "SuccessfulDelete", "Delete", "Deleted pod: %v", p.Name)
	}
	return pods.Each(plan.Create, func(node string) error { return c.create(ctx, key, ds, hash, node) })
}

func (c *Controller) create(ctx context.Context, key run.Key, ds *appsv1.DaemonSet, hash, node string) error {
	made, err := c.kit.Client.CoreV1().Pods(ds.Namespace).Create(ctx, PodFor(ds, hash, node), metav1.CreateOptions{})
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	if err != nil {
		c.kit.Recorder.Eventf(ds, nil, corev1.EventTypeWarning, "FailedCreate", "Create", "Error creating: %v", err)
		return fmt.Errorf("create pod for node %s: %w", node, err)
	}
	c.ledger.Created(key, made)
	c.kit.Recorder.Eventf(ds, made, corev1.EventTypeNormal, "SuccessfulCreate", "Create", "Created pod: %v", made.Name)
	return nil
}

func (c *Controller) updateStatus(ctx context.Context, ds *appsv1.DaemonSet, status appsv1.DaemonSetStatus) error {
	if equality.Semantic.DeepEqual(ds.Status, status) {
		return nil
	}
	up := ds.DeepCopy()
	up.Status = status
	_, err := c.kit.Client.AppsV1().DaemonSets(ds.Namespace).UpdateStatus(ctx, up, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update daemonset status: %w", err)
	}
	return nil
}
