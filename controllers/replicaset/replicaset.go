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
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/pods"
	"skein.dev/skein/controllers/run"
)

// Store reads and writes the sets of one kind. ReplicationControllers are
// older ReplicaSets, so they run on the same code, seen as ReplicaSets.
type Store interface {
	Kind() schema.GroupVersionKind
	// Get returns the set as a ReplicaSet and as it is, for Events.
	Get(namespace, name string) (*appsv1.ReplicaSet, runtime.Object, error)
	// Live reads the set from the API.
	Live(ctx context.Context, namespace, name string) (metav1.Object, error)
	// WriteStatus writes the status to the set that Get returned.
	WriteStatus(ctx context.Context, set runtime.Object, status appsv1.ReplicaSetStatus) error
	// Selecting are the keys of the sets that select an orphan.
	Selecting(*corev1.Pod) []run.Key
}

// Controller reconciles the sets of a store.
type Controller struct {
	kit    component.Kit
	store  Store
	sets   cache.SharedIndexInformer // with run.IndexByOwner
	pods   cache.SharedIndexInformer
	ledger *run.Ledger
}

// New takes its informers from kit.
func New(kit component.Kit) (run.Controller, error) {
	sets := kit.Informers.Apps().V1().ReplicaSets()
	return For(kit, "replicaset-controller", "replicasets.apps/status", sets.Informer(), store{kit: kit, sets: sets.Lister()})
}

// For makes the controller of a store's sets, which inf delivers.
func For(kit component.Kit, name, writes string, inf cache.SharedIndexInformer, s Store) (run.Controller, error) {
	podInf := kit.Informers.Core().V1().Pods().Informer()
	for _, i := range []cache.SharedIndexInformer{inf, podInf} {
		if err := run.IndexByOwner(i); err != nil {
			return run.Controller{}, err
		}
	}
	c := &Controller{kit: kit, store: s, sets: inf, pods: podInf, ledger: run.NewLedger(podInf)}
	return run.Controller{
		Name: name,
		Reads: []run.Source{
			{Informer: inf},
			{Informer: podInf, Keys: pods.OwnerOr(s.Kind().Kind, s.Selecting), Changed: pods.Changed},
		},
		Writes:    []string{"pods", writes},
		Workers:   4,
		Reconcile: c.reconcile,
		Reset:     c.ledger.Reset,
	}, nil
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	rs, obj, err := c.store.Get(key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read set: %w", err)
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
		manageErr = c.manage(ctx, key, set{rs, obj}, active)
	}
	now := time.Now()
	status, after := Status(rs, active, terminating, now, manageErr)
	if c.store.Kind().Kind != "ReplicaSet" { // the older kind has no such field
		status.TerminatingReplicas = nil
	}
	if !equality.Semantic.DeepEqual(rs.Status, status) {
		if err := c.store.WriteStatus(ctx, obj, status); err != nil && !apierrors.IsNotFound(err) {
			return 0, fmt.Errorf("update status: %w", err)
		}
	}
	return after, manageErr
}

func (c *Controller) claimer(rs *appsv1.ReplicaSet) pods.Claimer {
	return pods.Claimer{
		Client: c.kit.Client.CoreV1(), Informer: c.pods, Kind: c.store.Kind(),
		Live: func(ctx context.Context) (metav1.Object, error) { return c.store.Live(ctx, rs.Namespace, rs.Name) },
	}
}

// set is one in both its forms.
type set struct {
	*appsv1.ReplicaSet
	obj runtime.Object
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
func (c *Controller) manage(ctx context.Context, key run.Key, rs set, active []*corev1.Pod) error {
	diff := len(active) - int(wanted(rs.ReplicaSet))
	if diff < 0 {
		return pods.Burst(-diff, func() error { return c.create(ctx, key, rs) })
	}
	if diff == 0 {
		return nil
	}
	near := map[string]int{}
	for _, p := range c.related(rs.ReplicaSet) {
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
		for _, o := range run.ControlledBy(c.sets, ref.UID) {
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

func (c *Controller) create(ctx context.Context, key run.Key, rs set) error {
	pod := pods.FromTemplate(rs, c.store.Kind(), &rs.Spec.Template)
	made, err := c.kit.Client.CoreV1().Pods(rs.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		run.Event(c.kit.Recorder, rs.obj, nil, "FailedCreate", "Error creating: %v", err)
		return fmt.Errorf("create pod: %w", err)
	}
	c.ledger.Created(key, made)
	run.Event(c.kit.Recorder, rs.obj, made, "SuccessfulCreate", "Created pod: %v", made.Name)
	return nil
}

func (c *Controller) delete(ctx context.Context, key run.Key, rs set, p *corev1.Pod) error {
	err := c.kit.Client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &p.UID},
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err != nil {
		run.Event(c.kit.Recorder, rs.obj, nil, "FailedDelete", "Error deleting: %v", err)
		return fmt.Errorf("delete pod %s: %w", p.Name, err)
	}
	c.ledger.Deleted(key, p)
	run.Event(c.kit.Recorder, rs.obj, p, "SuccessfulDelete", "Deleted pod: %v", p.Name)
	return nil
}

func wanted(rs *appsv1.ReplicaSet) int32 {
	if rs.Spec.Replicas == nil {
		return 1
	}
	return *rs.Spec.Replicas
}
