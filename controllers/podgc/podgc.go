// Package podgc removes pods that nobody else will: those bound to nodes that
// no longer exist, those deleted before they had a node, and the oldest
// finished ones beyond a threshold.
//
// Its invariant: a pod is an orphan only after its node has been missing for
// a while and the API confirms that it does not exist.
package podgc

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/pods"
	"skein.dev/skein/controllers/run"
)

const (
	// quarantine is how long a node must be missing before its pods go.
	quarantine = 40 * time.Second
	// finishedLimit is how many finished pods are kept (upstream's default).
	finishedLimit = 12500
	everything    = "pods"
)

// Controller looks over all pods at once.
type Controller struct {
	kit   component.Kit
	pods  corelisters.PodLister
	nodes corelisters.NodeLister

	mu      sync.Mutex // guards the field below
	missing map[string]time.Time
}

// New takes its informers from kit.
func New(kit component.Kit) (run.Controller, error) {
	core := kit.Informers.Core().V1()
	c := &Controller{kit: kit, pods: core.Pods().Lister(), nodes: core.Nodes().Lister()}
	c.reset()
	all := run.Constant(everything)
	return run.Controller{
		Name: "pod-garbage-collector-controller",
		Reads: []run.Source{
			{Informer: core.Nodes().Informer(), Keys: all, Changed: func(any, any) bool { return false }},
			{Informer: core.Pods().Informer(), Keys: c.suspicious},
		},
		Writes:    []string{"pods", "pods/status"},
		Workers:   1,
		Timeout:   time.Minute,
		Reconcile: c.reconcile,
		Reset:     c.reset,
	}, nil
}

func (c *Controller) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.missing = map[string]time.Time{}
}

// suspicious wakes the controller only for pods it might have to remove.
func (c *Controller) suspicious(obj any) []run.Key {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return nil
	}
	if p.Spec.NodeName == "" {
		if p.DeletionTimestamp == nil {
			return nil
		}
	} else if _, err := c.nodes.Get(p.Spec.NodeName); err == nil && !pods.Finished(p) {
		return nil
	}
	return []run.Key{{Name: everything}}
}

func (c *Controller) reconcile(ctx context.Context, _ run.Key) (time.Duration, error) {
	if c.kit.Settled != nil && !c.kit.Settled() {
		return time.Second, nil
	}
	all, err := c.pods.List(labels.Everything())
	if err != nil {
		return 0, fmt.Errorf("list pods: %w", err)
	}
	after, err := c.orphans(ctx, all)
	if err != nil {
		return 0, err
	}
	for _, p := range all {
		if p.DeletionTimestamp != nil && p.Spec.NodeName == "" {
			if err := c.remove(ctx, p); err != nil {
				return 0, err
			}
		}
	}
	for _, p := range Excess(all, finishedLimit) {
		if err := c.remove(ctx, p); err != nil {
			return 0, err
		}
	}
	return after, nil
}

// orphans removes the pods of nodes that stay missing.
func (c *Controller) orphans(ctx context.Context, all []*corev1.Pod) (time.Duration, error) {
	now := time.Now()
	byNode := map[string][]*corev1.Pod{}
	for _, p := range all {
		if p.Spec.NodeName == "" {
			continue
		}
		if _, err := c.nodes.Get(p.Spec.NodeName); apierrors.IsNotFound(err) {
			byNode[p.Spec.NodeName] = append(byNode[p.Spec.NodeName], p)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := range c.missing {
		if _, still := byNode[n]; !still {
			delete(c.missing, n)
		}
	}
	var after time.Duration
	for n, orphaned := range byNode {
		since, known := c.missing[n]
		if !known {
			since = now
			c.missing[n] = now
		}
		if left := quarantine - now.Sub(since); left > 0 {
			after = max(after, left)
			continue
		}
		_, err := c.kit.Client.CoreV1().Nodes().Get(ctx, n, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			continue
		}
		for _, p := range orphaned {
			if err := c.fail(ctx, p); err != nil {
				return 0, err
			}
			if err := c.remove(ctx, p); err != nil {
				return 0, err
			}
		}
		delete(c.missing, n)
	}
	return after, nil
}

// fail says in the pod's status why it ended, for those who watch it (a Job).
func (c *Controller) fail(ctx context.Context, p *corev1.Pod) error {
	if pods.Finished(p) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": p.UID},
		"status": map[string]any{"phase": corev1.PodFailed, "conditions": []corev1.PodCondition{{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now(),
			Reason: "DeletionByPodGC", Message: "PodGC: node no longer exists",
		}}},
	})
	if err != nil {
		return fmt.Errorf("encode the end of pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	_, err = c.kit.Client.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("fail orphaned pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	return nil
}

func (c *Controller) remove(ctx context.Context, p *corev1.Pod) error {
	uid := p.UID
	err := c.kit.Client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{
		GracePeriodSeconds: new(int64), Preconditions: &metav1.Preconditions{UID: &uid},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("remove pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	return nil
}

// Excess are the oldest finished pods beyond limit.
func Excess(all []*corev1.Pod, limit int) []*corev1.Pod {
	var done []*corev1.Pod
	for _, p := range all {
		if pods.Finished(p) && p.DeletionTimestamp == nil {
			done = append(done, p)
		}
	}
	if len(done) <= limit {
		return nil
	}
	slices.SortFunc(done, func(a, b *corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	return done[:len(done)-limit]
}
