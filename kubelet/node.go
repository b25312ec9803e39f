package kubelet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/kubelet/cri"
)

// How often the node is looked at. Looking writes nothing.
const (
	nodePeriod      = 10 * time.Second
	nodeEagerPeriod = 200 * time.Millisecond // until it is Ready
)

// nodeKeeper registers the Node and keeps its status true.
type nodeKeeper struct {
	cfg     *Config
	runtime *cri.Client
	lister  listers.NodeLister
	signal  chan struct{}
	machine machine
	room    *room

	mu     sync.Mutex // guards the fields below
	health cri.Health
	ready  bool
	images []corev1.ContainerImage
	imgAt  time.Time
}

func newNodeKeeper(cfg *Config, r *cri.Client) *nodeKeeper {
	return &nodeKeeper{cfg: cfg, runtime: r, signal: make(chan struct{}, 1), machine: readMachine(cfg.RootDir)}
}

// handler wakes the keeper when somebody else changed the node.
func (n *nodeKeeper) handler() cache.ResourceEventHandler {
	mine := func(obj any) {
		if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = t.Obj
		}
		if node, ok := obj.(*corev1.Node); ok && node.Name == n.cfg.NodeName {
			n.poke()
		}
	}
	return cache.ResourceEventHandlerFuncs{AddFunc: mine, UpdateFunc: func(_, obj any) { mine(obj) }, DeleteFunc: mine}
}

func (n *nodeKeeper) poke() {
	select {
	case n.signal <- struct{}{}:
	default:
	}
}

// runtimeName is the scheme of container ids.
func (n *nodeKeeper) runtimeName() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.health.Name == "" {
		return "containerd"
	}
	return n.health.Name
}

// run keeps the node until ctx ends.
func (n *nodeKeeper) run(ctx context.Context) {
	var last string
	for {
		n.look(ctx)
		short := n.room.look(ctx)
		err := n.sync(ctx) // what is short is told before anything is done about it
		n.room.reclaim(ctx, short)
		period := nodePeriod
		if err != nil || !n.isReady() {
			period = nodeEagerPeriod
		}
		if err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && err.Error() != last {
			last = err.Error()
			n.cfg.Kit.Log.WarnContext(ctx, "node status not written", "err", err)
		}
		t := time.NewTimer(period)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		case <-n.signal:
			t.Stop()
		}
	}
}

func (n *nodeKeeper) isReady() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ready
}

// look asks the runtime how it is.
func (n *nodeKeeper) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	h := n.runtime.Health(ctx)
	n.mu.Lock()
	due := h.Runtime == nil && time.Since(n.imgAt) > time.Minute
	n.health = h
	n.mu.Unlock()
	if !due {
		return
	}
	if images, err := listImages(ctx, n.runtime); err == nil {
		n.mu.Lock()
		n.images, n.imgAt = images, time.Now()
		n.mu.Unlock()
	}
}

// sync makes the API's node what it should be, and writes only what differs.
func (n *nodeKeeper) sync(ctx context.Context) error {
	nodes := n.cfg.Kit.Client.CoreV1().Nodes()
	live, err := n.lister.Get(n.cfg.NodeName)
	if err != nil {
		live, err = nodes.Get(ctx, n.cfg.NodeName, metav1.GetOptions{})
	}
	if apierrors.IsNotFound(err) {
		fresh := n.fresh()
		n.fill(fresh)
		live, err = nodes.Create(ctx, fresh, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			live, err = nodes.Get(ctx, n.cfg.NodeName, metav1.GetOptions{})
		}
	}
	if err != nil {
		return fmt.Errorf("register node: %w", err)
	}
	next := live.DeepCopy()
	if n.mark(next) {
		if live, err = nodes.Update(ctx, next, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("update node: %w", err)
		}
		next = live.DeepCopy()
	}
	n.fill(next)
	if equality.Semantic.DeepEqual(live.Status, next.Status) {
		return nil
	}
	if _, err := nodes.UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("update node status: %w", err)
	}
	return nil
}

// fresh is the node as it is registered.
func (n *nodeKeeper) fresh() *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.cfg.NodeName}, Spec: corev1.NodeSpec{Taints: n.cfg.Taints}}
	n.mark(node)
	return node
}

// mark sets labels and ranges that are missing and reports whether any was.
func (n *nodeKeeper) mark(node *corev1.Node) bool {
	want := maps.Clone(n.cfg.Labels)
	if want == nil {
		want = map[string]string{}
	}
	want[corev1.LabelHostname] = n.cfg.NodeName
	want[corev1.LabelOSStable], want["beta.kubernetes.io/os"] = runtime.GOOS, runtime.GOOS
	want[corev1.LabelArchStable], want["beta.kubernetes.io/arch"] = runtime.GOARCH, runtime.GOARCH
	changed := false
	for k, v := range want {
		if node.Labels[k] != v {
			if node.Labels == nil {
				node.Labels = map[string]string{}
			}
			node.Labels[k] = v
			changed = true
		}
	}
	if node.Spec.PodCIDR == "" && len(n.cfg.PodCIDRs) > 0 {
		node.Spec.PodCIDR, node.Spec.PodCIDRs = n.cfg.PodCIDRs[0].String(), nil
		for _, p := range n.cfg.PodCIDRs {
			node.Spec.PodCIDRs = append(node.Spec.PodCIDRs, p.String())
		}
		changed = true
	}
	return changed
}

// fill writes the kubelet's part of the status.
func (n *nodeKeeper) fill(node *corev1.Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	st := &node.Status
	st.Capacity, st.Allocatable = withExtended(st.Capacity, n.capacity()), withExtended(st.Capacity, n.allocatable())
	st.Addresses = nil
	for _, ip := range n.cfg.NodeIPs {
		st.Addresses = append(st.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip.String()})
	}
	st.Addresses = append(st.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: n.cfg.NodeName})
	if port := n.cfg.port(); port > 0 {
		st.DaemonEndpoints.KubeletEndpoint.Port = port
	}
	info := n.machine.info
	info.KubeletVersion = n.cfg.Version
	if n.health.Name != "" {
		info.ContainerRuntimeVersion = n.health.Name + "://" + n.health.Version
	} else {
		info.ContainerRuntimeVersion = st.NodeInfo.ContainerRuntimeVersion
	}
	st.NodeInfo = info
	if n.images != nil {
		st.Images = n.images
	}
	n.conditionsLocked(st)
}

// withExtended is what the kubelet itself knows to be there and, as others
// have advertised it, what it knows nothing of: extended resources, whose names
// have a domain. All of these may be given to pods.
func withExtended(advertised, own corev1.ResourceList) corev1.ResourceList {
	for name, q := range advertised {
		if _, known := own[name]; !known && strings.Contains(string(name), "/") {
			own[name] = q.DeepCopy()
		}
	}
	return own
}

func (n *nodeKeeper) conditionsLocked(st *corev1.NodeStatus) {
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	set := func(t corev1.NodeConditionType, status corev1.ConditionStatus, reason, message string) {
		c := corev1.NodeCondition{Type: t, Status: status, Reason: reason, Message: message, LastHeartbeatTime: now, LastTransitionTime: now}
		for i := range st.Conditions {
			old := &st.Conditions[i]
			if old.Type != t {
				continue
			}
			if old.Status == status {
				c.LastTransitionTime = old.LastTransitionTime
			}
			if old.Status != status || old.Reason != reason || old.Message != message {
				*old = c
			}
			return
		}
		st.Conditions = append(st.Conditions, c)
	}
	under := n.room.under()
	for _, p := range pressures() {
		if slices.Contains(under, p.condition) {
			set(p.condition, corev1.ConditionTrue, p.bad, p.badNote)
		} else {
			set(p.condition, corev1.ConditionFalse, p.good, p.goodNote)
		}
	}
	err := errors.Join(n.health.Runtime, n.health.Network)
	if n.ready = err == nil; n.ready {
		set(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady", "kubelet is posting ready status")
		return
	}
	set(corev1.NodeReady, corev1.ConditionFalse, "KubeletNotReady", err.Error())
}
