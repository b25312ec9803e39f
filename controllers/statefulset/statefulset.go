// Package statefulset gives pods names that stay: each has an ordinal, a
// hostname and claims of its own, kept from pod to pod.
//
// Its invariant: a pod is made only when the API no longer has one of its
// name, so two of a name never run by our doing; a pod on a peer that is out
// of reach keeps its place until it is known to have ended.
package statefulset

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
	"k8s.io/apimachinery/pkg/runtime/schema"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/pods"
	"skein.dev/skein/controllers/revision"
	"skein.dev/skein/controllers/run"
)

func kind() schema.GroupVersionKind { return appsv1.SchemeGroupVersion.WithKind("StatefulSet") }

// Controller reconciles StatefulSets.
type Controller struct {
	kit    component.Kit
	sets   appslisters.StatefulSetLister
	claims corelisters.PersistentVolumeClaimLister // nil: claims are not served
	pods   cache.SharedIndexInformer
	ledger *run.Ledger
	keeper revision.Keeper
}

// New takes its informers from kit; claims says whether the API serves
// persistent volume claims.
func New(kit component.Kit, claims bool) (run.Controller, error) {
	apps, core := kit.Informers.Apps().V1(), kit.Informers.Core().V1()
	c := &Controller{
		kit: kit, sets: apps.StatefulSets().Lister(), pods: core.Pods().Informer(),
		keeper: revision.Keeper{Client: kit.Client.AppsV1(), Informer: apps.ControllerRevisions().Informer(), Kind: kind()},
	}
	c.ledger = run.NewLedger(c.pods)
	for _, inf := range []cache.SharedIndexInformer{c.pods, c.keeper.Informer} {
		if err := run.IndexByOwner(inf); err != nil {
			return run.Controller{}, err
		}
	}
	out := run.Controller{
		Name: "statefulset-controller",
		Reads: []run.Source{
			{Informer: apps.StatefulSets().Informer()},
			{Informer: c.pods, Keys: c.keysOfPod, Changed: pods.Changed},
			{Informer: c.keeper.Informer, Keys: run.OwnerKeys("StatefulSet")},
		},
		Writes:    []string{"pods", "persistentvolumeclaims", "statefulsets.apps/status", "controllerrevisions.apps"},
		Reconcile: c.reconcile,
		Reset:     c.ledger.Reset,
	}
	if claims {
		c.claims = core.PersistentVolumeClaims().Lister()
		out.Reads = append(out.Reads, run.Source{Informer: core.PersistentVolumeClaims().Informer(), Keys: run.None})
	}
	return out, nil
}

func (c *Controller) keysOfPod(obj any) []run.Key {
	return pods.OwnerOr("StatefulSet", func(p *corev1.Pod) []run.Key {
		sets, err := c.sets.GetPodStatefulSets(p)
		if err != nil { // none selects it
			return nil
		}
		return run.KeysOf(sets)
	})(obj)
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	set, err := c.sets.StatefulSets(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read statefulset: %w", err)
	}
	if !c.ledger.Settled(key) {
		return run.Unsettled, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil || selector.Empty() {
		return 0, nil //nolint:nilerr // validation refuses such selectors; trying again cannot help
	}
	update, old, err := c.keeper.Current(ctx, set, &set.Spec.Template, set.Status.CollisionCount)
	if errors.Is(err, revision.ErrCollision) {
		return 0, c.collided(ctx, set)
	}
	if err != nil {
		return 0, err
	}
	claimer := pods.Claimer{
		Client: c.kit.Client.CoreV1(), Informer: c.pods, Kind: kind(),
		Mine: func(p *corev1.Pod) bool { return Ordinal(set, p) >= 0 },
		Live: func(ctx context.Context) (metav1.Object, error) {
			return c.kit.Client.AppsV1().StatefulSets(set.Namespace).Get(ctx, set.Name, metav1.GetOptions{})
		},
	}
	mine, err := claimer.Claim(ctx, set, selector)
	if err != nil {
		return 0, err
	}
	in := Input{Set: set, Pods: mine, Claim: c.claim(set.Namespace), Now: time.Now()}
	in.Update = Revision{Name: update.Name, Template: &set.Spec.Template}
	if in.Current, err = current(set, in.Update, old); err != nil {
		return 0, err
	}
	plan := Decide(in)
	if err := errors.Join(c.apply(ctx, key, set, &plan), c.updateStatus(ctx, set, plan.Status)); err != nil {
		return 0, err
	}
	return plan.After, c.prune(ctx, set, old, mine, plan.Status)
}

// current is the revision that the set's status names, else the update's.
func current(set *appsv1.StatefulSet, update Revision, old []*appsv1.ControllerRevision) (Revision, error) {
	for _, r := range old {
		if r.Name == set.Status.CurrentRevision {
			t, err := revision.Template(r)
			return Revision{Name: r.Name, Template: t}, err
		}
	}
	return update, nil
}

func (c *Controller) claim(namespace string) func(string) *corev1.PersistentVolumeClaim {
	return func(name string) *corev1.PersistentVolumeClaim {
		if c.claims == nil {
			return nil
		}
		got, err := c.claims.PersistentVolumeClaims(namespace).Get(name)
		if err != nil {
			return nil
		}
		return got
	}
}

func (c *Controller) prune(ctx context.Context, set *appsv1.StatefulSet, old []*appsv1.ControllerRevision, mine []*corev1.Pod, status appsv1.StatefulSetStatus) error {
	live := map[string]bool{status.CurrentRevision: true, status.UpdateRevision: true}
	for _, p := range mine {
		live[revisionOf(p)] = true
	}
	limit := 10
	if set.Spec.RevisionHistoryLimit != nil {
		limit = int(*set.Spec.RevisionHistoryLimit)
	}
	return c.keeper.Prune(ctx, old, limit, live)
}

func (c *Controller) collided(ctx context.Context, set *appsv1.StatefulSet) error {
	status := *set.Status.DeepCopy()
	n := int32(1)
	if status.CollisionCount != nil {
		n += *status.CollisionCount
	}
	status.CollisionCount = &n
	return c.updateStatus(ctx, set, status)
}

// apply carries out the plan. Pods are made and deleted whatever becomes of
// the others; what failed is tried again.
func (c *Controller) apply(ctx context.Context, key run.Key, set *appsv1.StatefulSet, plan *Plan) error {
	core := c.kit.Client.CoreV1()
	for _, claim := range plan.Claims {
		_, err := core.PersistentVolumeClaims(set.Namespace).Create(ctx, claim, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			c.event(set, nil, "FailedCreate", "create Claim %s in StatefulSet %s failed error: %v", claim.Name, set.Name, err)
			return fmt.Errorf("create claim %s: %w", claim.Name, err)
		}
		if err == nil {
			c.event(set, nil, "SuccessfulCreate", "create Claim %s in StatefulSet %s success", claim.Name, set.Name)
		}
	}
	for _, claim := range plan.Own {
		if _, err := core.PersistentVolumeClaims(set.Namespace).Update(ctx, claim, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("update owners of claim %s: %w", claim.Name, err)
		}
	}
	for _, p := range plan.Repair {
		if _, err := core.Pods(set.Namespace).Update(ctx, p, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("repair pod %s: %w", p.Name, err)
		}
	}
	var errs []error
	for _, p := range plan.Delete {
		errs = append(errs, c.delete(ctx, key, set, p))
	}
	errs = append(errs, pods.Each(plan.Create, func(p *corev1.Pod) error { return c.create(ctx, key, set, p) }))
	return errors.Join(errs...)
}

func (c *Controller) create(ctx context.Context, key run.Key, set *appsv1.StatefulSet, p *corev1.Pod) error {
	made, err := c.kit.Client.CoreV1().Pods(set.Namespace).Create(ctx, p, metav1.CreateOptions{})
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	if err != nil {
		c.event(set, nil, "FailedCreate", "create Pod %s in StatefulSet %s failed error: %v", p.Name, set.Name, err)
		return fmt.Errorf("create pod %s: %w", p.Name, err)
	}
	c.ledger.Created(key, made)
	c.event(set, made, "SuccessfulCreate", "create Pod %s in StatefulSet %s successful", p.Name, set.Name)
	return nil
}

func (c *Controller) delete(ctx context.Context, key run.Key, set *appsv1.StatefulSet, p *corev1.Pod) error {
	err := c.kit.Client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err != nil {
		c.event(set, nil, "FailedDelete", "delete Pod %s in StatefulSet %s failed error: %v", p.Name, set.Name, err)
		return fmt.Errorf("delete pod %s: %w", p.Name, err)
	}
	c.ledger.Deleted(key, p)
	c.event(set, p, "SuccessfulDelete", "delete Pod %s in StatefulSet %s successful", p.Name, set.Name)
	return nil
}

// event reports on the set; reasons that begin with Failed are warnings.
func (c *Controller) event(set *appsv1.StatefulSet, about *corev1.Pod, reason, format string, args ...any) {
	run.Event(c.kit.Recorder, set, about, reason, format, args...)
}

func (c *Controller) updateStatus(ctx context.Context, set *appsv1.StatefulSet, status appsv1.StatefulSetStatus) error {
	if equality.Semantic.DeepEqual(set.Status, status) {
		return nil
	}
	up := set.DeepCopy()
	up.Status = status
	_, err := c.kit.Client.AppsV1().StatefulSets(set.Namespace).UpdateStatus(ctx, up, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update statefulset status: %w", err)
	}
	return nil
}
