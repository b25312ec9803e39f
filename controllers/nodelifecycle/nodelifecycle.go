// Package nodelifecycle turns what the mesh knows of its peers into the
// state of Nodes, and moves pods away from those that are lost.
//
// Its invariant: a pod that must not run twice is never force-deleted from a
// node that is only out of reach, and nothing is evicted while most of the
// mesh is lost: then it is more likely that we see badly.
package nodelifecycle

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	coordlisters "k8s.io/client-go/listers/coordination/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/component"
	"skein.dev/skein/api/member"
	"skein.dev/skein/controllers/run"
)

const (
	byNode = "node"
	// losses a second that may start evictions, and how many at once.
	lossRate, lossBurst = 0.5, 3
	// leaseGrace is how long a node that is no member of the mesh may leave
	// its lease unrenewed.
	leaseGrace = 40 * time.Second
)

// Controller reconciles Nodes.
type Controller struct {
	kit     component.Kit
	members member.View
	nodes   corelisters.NodeLister
	leases  coordlisters.LeaseLister
	pods    cache.SharedIndexInformer
	limit   *rate.Limiter

	mu      sync.Mutex // guards the fields below
	renewed map[string]renewal
}

// renewal is when we last saw a lease change; clocks of other machines are
// not compared.
type renewal struct {
	version string
	seen    time.Time
}

// New takes its informers from kit; members tells who lives.
func New(kit component.Kit, members member.View) (run.Controller, error) {
	core := kit.Informers.Core().V1()
	leases := kit.Informers.Coordination().V1().Leases()
	c := &Controller{
		kit: kit, members: members,
		nodes: core.Nodes().Lister(), pods: core.Pods().Informer(), leases: leases.Lister(),
		limit: rate.NewLimiter(lossRate, lossBurst),
	}
	c.reset()
	if err := run.IndexBy(c.pods, byNode, nodeOf); err != nil {
		return run.Controller{}, err
	}
	return run.Controller{
		Name: "node-lifecycle-controller",
		Reads: []run.Source{
			{Informer: core.Nodes().Informer()},
			{Informer: c.pods, Keys: keysOfPod, Changed: podMatters},
			{Informer: leases.Informer(), Keys: keysOfLease},
		},
		Writes:    []string{"nodes", "nodes/status", "pods", "pods/status"},
		Workers:   4,
		Reconcile: c.reconcile,
		Feed:      c.feed,
		Reset:     c.reset,
	}, nil
}

func (c *Controller) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renewed = map[string]renewal{}
}

func nodeOf(obj any) []string {
	if p, ok := obj.(*corev1.Pod); ok && p.Spec.NodeName != "" {
		return []string{p.Spec.NodeName}
	}
	return nil
}

func keysOfPod(obj any) []run.Key {
	names := nodeOf(obj)
	if len(names) == 0 {
		return nil
	}
	return []run.Key{{Name: names[0]}}
}

// podMatters keeps status updates of running pods from waking us.
func podMatters(before, after any) bool {
	a, ok := before.(*corev1.Pod)
	b, ok2 := after.(*corev1.Pod)
	return !ok || !ok2 || a.Spec.NodeName != b.Spec.NodeName || (a.DeletionTimestamp == nil) != (b.DeletionTimestamp == nil) ||
		!equality.Semantic.DeepEqual(a.Spec.Tolerations, b.Spec.Tolerations)
}

func keysOfLease(obj any) []run.Key {
	l, ok := obj.(*coordinationv1.Lease)
	if !ok || l.Namespace != corev1.NamespaceNodeLease {
		return nil
	}
	return []run.Key{{Name: l.Name}}
}

// feed wakes all nodes when the membership changes: how many are lost decides
// what may be done about each.
func (c *Controller) feed(ctx context.Context, add func(run.Key)) error {
	for {
		changed := c.members.Changed()
		all, err := c.nodes.List(labels.Everything())
		if err != nil {
			return fmt.Errorf("list nodes: %w", err)
		}
		for _, n := range all {
			add(run.Key{Name: n.Name})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	node, err := c.nodes.Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read node: %w", err)
	}
	now := time.Now()
	health, after := c.health(node, now)
	if health == Lost && c.kit.Settled != nil && !c.kit.Settled() {
		return time.Second, nil
	}
	if health == Lost {
		if node, err = c.markLost(ctx, node, now); err != nil {
			return 0, err
		}
		if err := c.markPods(ctx, node); err != nil {
			return 0, err
		}
	}
	node, wait, err := c.taint(ctx, node, now)
	if err != nil {
		return 0, err
	}
	evictWait, err := c.evict(ctx, node, health, now)
	return soonest(after, wait, evictWait), err
}

// health asks the membership, and for a node that is no member its lease.
func (c *Controller) health(node *corev1.Node, now time.Time) (Health, time.Duration) {
	for _, p := range c.members.Peers() {
		if string(p.Name) == node.Name {
			return ofMember(p.State), 0
		}
	}
	lease, err := c.leases.Leases(corev1.NamespaceNodeLease).Get(node.Name)
	if err != nil {
		return Unknown, 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.renewed[node.Name]
	if !ok || r.version != lease.ResourceVersion {
		c.renewed[node.Name] = renewal{version: lease.ResourceVersion, seen: now}
		return Unknown, leaseGrace + time.Second
	}
	if left := leaseGrace - now.Sub(r.seen); left > 0 {
		return Unknown, left + time.Second
	}
	return Lost, 0
}

func (c *Controller) markLost(ctx context.Context, node *corev1.Node, now time.Time) (*corev1.Node, error) {
	conditions, changed := LostConditions(node.Status.Conditions, now)
	if !changed {
		return node, nil
	}
	up := node.DeepCopy()
	up.Status.Conditions = conditions
	got, err := c.kit.Client.CoreV1().Nodes().UpdateStatus(ctx, up, metav1.UpdateOptions{})
	if err != nil {
		return nil, fmt.Errorf("mark node %s unknown: %w", node.Name, err)
	}
	c.kit.Log.InfoContext(ctx, "node is lost", "node", node.Name)
	c.kit.Recorder.Eventf(node, nil, corev1.EventTypeNormal, "NodeNotReady", "NodeNotReady",
		"Node %s status is now: NodeNotReady", node.Name)
	return got, nil
}

// taint makes the node's taints tell its conditions. NoExecute of a loss is
// withheld while most nodes are lost, and handed out at a limited rate.
func (c *Controller) taint(ctx context.Context, node *corev1.Node, now time.Time) (*corev1.Node, time.Duration, error) {
	all, err := c.nodes.List(labels.Everything())
	if err != nil {
		return node, 0, fmt.Errorf("list nodes: %w", err)
	}
	execute := !MassLoss(all)
	want := Taints(node, execute, now)
	var wait time.Duration
	if gains(node.Spec.Taints, want, corev1.TaintNodeUnreachable) {
		if r := c.limit.ReserveN(now, 1); r.DelayFrom(now) > 0 {
			wait = r.DelayFrom(now)
			r.CancelAt(now)
			want = Taints(node, false, now)
		}
	}
	if equality.Semantic.DeepEqual(node.Spec.Taints, want) || (len(want) == 0 && len(node.Spec.Taints) == 0) {
		return node, wait, nil
	}
	up := node.DeepCopy()
	up.Spec.Taints = want
	got, err := c.kit.Client.CoreV1().Nodes().Update(ctx, up, metav1.UpdateOptions{})
	if err != nil {
		return node, 0, fmt.Errorf("taint node %s: %w", node.Name, err)
	}
	return got, wait, nil
}

func (c *Controller) podsOn(node string) []*corev1.Pod {
	objs := run.By(c.pods, byNode, node)
	out := make([]*corev1.Pod, 0, len(objs))
	for _, o := range objs {
		if p, ok := o.(*corev1.Pod); ok {
			out = append(out, p)
		}
	}
	return out
}

// soonest is the shortest duration that is not zero.
func soonest(all ...time.Duration) time.Duration {
	var best time.Duration
	for _, d := range all {
		if d > 0 && (best == 0 || d < best) {
			best = d
		}
	}
	return best
}
