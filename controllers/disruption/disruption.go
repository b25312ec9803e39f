// Package disruption counts for each budget how many of its pods may be
// evicted.
//
// Its invariant: a budget allows a disruption only on a count made after all
// evictions that were granted before.
package disruption

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	policylisters "k8s.io/client-go/listers/policy/v1"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/pods"
	"skein.dev/skein/controllers/run"
)

// Controller reconciles PodDisruptionBudgets.
type Controller struct {
	kit         component.Kit
	budgets     policylisters.PodDisruptionBudgetLister
	pods        corelisters.PodLister
	sets        appslisters.ReplicaSetLister
	deployments appslisters.DeploymentLister
	stateful    appslisters.StatefulSetLister
	rcs         corelisters.ReplicationControllerLister // nil: not served
}

// New takes its informers from kit; serves tells which kinds there are.
func New(kit component.Kit, serves func(schema.GroupResource) bool) (run.Controller, error) {
	apps, core, policy := kit.Informers.Apps().V1(), kit.Informers.Core().V1(), kit.Informers.Policy().V1()
	c := &Controller{
		kit: kit, budgets: policy.PodDisruptionBudgets().Lister(), pods: core.Pods().Lister(),
		sets: apps.ReplicaSets().Lister(), deployments: apps.Deployments().Lister(), stateful: apps.StatefulSets().Lister(),
	}
	reads := []run.Source{
		{Informer: policy.PodDisruptionBudgets().Informer()},
		{Informer: core.Pods().Informer(), Keys: c.keysOfPod, Changed: pods.Changed},
		{Informer: apps.ReplicaSets().Informer(), Keys: run.None},
		{Informer: apps.Deployments().Informer(), Keys: c.inNamespace, Changed: scaled},
		{Informer: apps.StatefulSets().Informer(), Keys: c.inNamespace, Changed: scaled},
	}
	if serves(corev1.Resource("replicationcontrollers")) {
		c.rcs = core.ReplicationControllers().Lister()
		reads = append(reads, run.Source{Informer: core.ReplicationControllers().Informer(), Keys: c.inNamespace, Changed: scaled})
	}
	return run.Controller{
		Name: "disruption-controller", Reads: reads, Writes: []string{"poddisruptionbudgets.policy/status"}, Reconcile: c.reconcile,
	}, nil
}

// scaled: of the owners only their generation is of interest.
func scaled(before, after any) bool {
	a, ok := before.(metav1.Object)
	b, ok2 := after.(metav1.Object)
	return !ok || !ok2 || a.GetGeneration() != b.GetGeneration()
}

func (c *Controller) keysOfPod(obj any) []run.Key {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return nil
	}
	all, err := c.budgets.PodDisruptionBudgets(p.Namespace).List(labels.Everything())
	if err != nil { // a lister over a store never fails
		return nil
	}
	var keys []run.Key
	for _, b := range all {
		if sel, err := metav1.LabelSelectorAsSelector(b.Spec.Selector); err == nil && sel.Matches(labels.Set(p.Labels)) {
			keys = append(keys, run.Key{Namespace: b.Namespace, Name: b.Name})
		}
	}
	return keys
}

func (c *Controller) inNamespace(obj any) []run.Key {
	m, ok := obj.(metav1.Object)
	if !ok {
		return nil
	}
	all, err := c.budgets.PodDisruptionBudgets(m.GetNamespace()).List(labels.Everything())
	if err != nil { // as above
		return nil
	}
	return run.KeysOf(all)
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	pdb, err := c.budgets.PodDisruptionBudgets(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read budget: %w", err)
	}
	if pdb.DeletionTimestamp != nil {
		return 0, nil
	}
	sel, err := metav1.LabelSelectorAsSelector(pdb.Spec.Selector)
	if err != nil {
		return 0, nil //nolint:nilerr // validation refuses such selectors; trying again cannot help
	}
	mine, err := c.pods.Pods(key.Namespace).List(sel)
	if err != nil {
		return 0, fmt.Errorf("list pods: %w", err)
	}
	now := time.Now()
	status, after, err := Decide(pdb, mine, c.scale(key.Namespace), now)
	if err != nil {
		status, after = Failed(pdb, err, now), time.Minute
	}
	if equality.Semantic.DeepEqual(pdb.Status, status) {
		return after, nil
	}
	if err != nil { // told once, not at every look
		c.kit.Recorder.Eventf(pdb, nil, corev1.EventTypeWarning, "CalculateExpectedPodCountFailed", "Count",
			"Failed to calculate the number of expected pods: %v", err)
	}
	up := pdb.DeepCopy()
	up.Status = status
	_, err = c.kit.Client.PolicyV1().PodDisruptionBudgets(key.Namespace).UpdateStatus(ctx, up, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("update budget status: %w", err)
	}
	return after, nil
}

var errNoScale = errors.New("found no controllers for pod")

// scale finds how many pods an owner wants; a Deployment is asked for its
// ReplicaSets, whose own numbers change while it rolls.
func (c *Controller) scale(namespace string) Scale {
	return func(ref *metav1.OwnerReference) (int32, error) {
		var n *int32
		var err error
		switch ref.Kind {
		case "ReplicaSet":
			rs, e := c.sets.ReplicaSets(namespace).Get(ref.Name)
			if e != nil {
				return 0, fmt.Errorf("read replicaset: %w", e)
			}
			n = rs.Spec.Replicas
			if up := metav1.GetControllerOfNoCopy(rs); up != nil && up.Kind == "Deployment" {
				d, e := c.deployments.Deployments(namespace).Get(up.Name)
				if err = e; e == nil {
					n = d.Spec.Replicas
				}
			}
		case "StatefulSet":
			s, e := c.stateful.StatefulSets(namespace).Get(ref.Name)
			if err = e; e == nil {
				n = s.Spec.Replicas
			}
		case "ReplicationController":
			if c.rcs == nil {
				return 0, errNoScale
			}
			rc, e := c.rcs.ReplicationControllers(namespace).Get(ref.Name)
			if err = e; e == nil {
				n = rc.Spec.Replicas
			}
		default:
			return 0, fmt.Errorf("%w: %s %s has no scale", errNoScale, ref.Kind, ref.Name)
		}
		switch {
		case err != nil:
			return 0, fmt.Errorf("read %s %s: %w", ref.Kind, ref.Name, err)
		case n == nil:
			return 1, nil
		default:
			return *n, nil
		}
	}
}
