package kubelet_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"

	"skein.dev/skein/api/component"
	"skein.dev/skein/kubelet"
	"skein.dev/skein/kubelet/cri/critest"
	"skein.dev/skein/network/lb"
)

const image = "example.test/app:1"

// node is one kubelet on a runtime in memory and an API in memory.
type node struct {
	*testing.T
	client  kubernetes.Interface
	runtime *critest.Runtime
	dir     string
	settled func() bool
	ports   lb.Feed

	evictionHard map[string]string
	stop         func()
	cgroup       string
}

func newNode(t *testing.T) *node {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("cgroups and mounts need root")
	}
	// What the machine itself is short of is none of a test's business.
	n := &node{T: t, evictionHard: map[string]string{"memory.available": "1Mi"}, dir: t.TempDir(), client: fake.NewClientset(), cgroup: "skein-kubelet-" + filepath.Base(filepath.Dir(t.TempDir()))}
	r, err := critest.Listen(t.Context(), filepath.Join(n.dir, "r.sock"), image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	n.runtime = r
	n.start()
	t.Cleanup(func() {
		n.stop()
		n.clean()
	})
	return n
}

func (n *node) config() kubelet.Config {
	return kubelet.Config{
		Kit: component.Kit{
			Peer: "n1", Client: n.client, Informers: informers.NewSharedInformerFactory(n.client, 0),
			Recorder: events.NewFakeRecorder(10000), Settled: n.settled,
		},
		NodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, CRIEndpoint: filepath.Join(n.dir, "r.sock"),
		RootDir: filepath.Join(n.dir, "kubelet"), LogDir: filepath.Join(n.dir, "logs"), CgroupRoot: n.cgroup,
		ClusterDNS: []netip.Addr{netip.MustParseAddr("10.96.0.10")}, Listen: "-", Version: "v1.37.2", HostPorts: &n.ports,
		EvictionHard: n.evictionHard,
	}
}

// start runs a kubelet until n.stop.
func (n *node) start() {
	n.Helper()
	cfg := n.config()
	k, err := kubelet.New(cfg)
	if err != nil {
		n.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cfg.Kit.Informers.Start(ctx.Done())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	n.stop = func() {
		cancel()
		if err := <-done; err != nil {
			n.Errorf("Run: %v", err)
		}
		cfg.Kit.Informers.Shutdown()
		n.stop = func() {}
	}
}

func (n *node) clean() {
	k, err := kubelet.New(n.config())
	if err != nil {
		n.Fatal(err)
	}
	if err := k.Clean(context.Background()); err != nil {
		n.Error(err)
	}
	left, _ := filepath.Glob("/sys/fs/cgroup/*/" + n.cgroup)
	for _, d := range append(left, "/sys/fs/cgroup/"+n.cgroup) {
		_ = os.Remove(d)
	}
}

func pod(name string, edit func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID("uid-" + name)},
		Spec: corev1.PodSpec{
			NodeName: "n1", RestartPolicy: corev1.RestartPolicyAlways,
			Containers: []corev1.Container{{Name: "app", Image: image, Command: []string{"sleep"}, ImagePullPolicy: corev1.PullIfNotPresent}},
		},
	}
	if edit != nil {
		edit(p)
	}
	return p
}

func (n *node) create(p *corev1.Pod) {
	n.Helper()
	if _, err := n.client.CoreV1().Pods(p.Namespace).Create(n.Context(), p, metav1.CreateOptions{}); err != nil {
		n.Fatal(err)
	}
}

// eventually waits for a state of the pod, and shows the last one if it does
// not come.
func (n *node) eventually(name, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	n.Helper()
	var last *corev1.Pod
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		p, err := n.client.CoreV1().Pods("default").Get(n.Context(), name, metav1.GetOptions{})
		if err != nil {
			p = nil
		}
		if ok(p) {
			return p
		}
		last = p
	}
	if last != nil {
		n.Fatalf("%s: %s: last status %+v", name, what, last.Status)
	}
	n.Fatalf("%s: %s: no such pod", name, what)
	return nil
}

func running(p *corev1.Pod) bool {
	return p != nil && p.Status.Phase == corev1.PodRunning && ready(p)
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func (n *node) remove(name string, grace int64) {
	n.Helper()
	p, err := n.client.CoreV1().Pods("default").Get(n.Context(), name, metav1.GetOptions{})
	if err != nil {
		n.Fatal(err)
	}
	now := metav1.Now()
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &now, &grace
	if _, err := n.client.CoreV1().Pods("default").Update(n.Context(), p, metav1.UpdateOptions{}); err != nil {
		n.Fatal(err)
	}
}

// readyNode waits until the kubelet says that its node is Ready.
func (n *node) readyNode() *corev1.Node {
	n.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		node, err := n.client.CoreV1().Nodes().Get(n.Context(), "n1", metav1.GetOptions{})
		if err == nil && len(node.Status.Conditions) == 4 && node.Status.Conditions[3].Status == corev1.ConditionTrue {
			return node
		}
		if time.Now().After(end) {
			n.Fatalf("node never Ready: %+v %v", node, err)
		}
	}
}

func TestNodeIsRegisteredAndReady(t *testing.T) {
	node := newNode(t).readyNode()
	if node.Labels[corev1.LabelHostname] != "n1" || node.Status.Addresses[0].Address != "192.0.2.1" {
		t.Errorf("node %+v", node)
	}
}

func TestResourcesThatOthersAdvertiseStay(t *testing.T) {
	n := newNode(t)
	node := n.readyNode()
	n.stop()
	const dongles = "example.com/dongles"
	node.Status.Capacity[dongles] = resource.MustParse("5")
	node.Status.Conditions[3].Status = corev1.ConditionFalse // so that the kubelet has something to write
	if _, err := n.client.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	n.start()
	node = n.readyNode()
	has, gives := node.Status.Capacity[dongles], node.Status.Allocatable[dongles]
	if has.Value() != 5 || gives.Value() != 5 {
		t.Errorf("capacity %v, allocatable %v, want 5 dongles in both", node.Status.Capacity, node.Status.Allocatable)
	}
}

func TestPodRunsAndIsDeletedWithoutATrace(t *testing.T) {
	n := newNode(t)
	n.create(pod("a", nil))
	p := n.eventually("a", "running", running)
	if p.Status.PodIP == "" || p.Status.HostIP != "192.0.2.1" {
		t.Errorf("addresses %q %q", p.Status.PodIP, p.Status.HostIP)
	}
	if id := p.Status.ContainerStatuses[0].ContainerID; !strings.HasPrefix(id, "critest://") {
		t.Errorf("container id %q", id)
	}
	n.remove("a", 30)
	n.eventually("a", "deleted", func(p *corev1.Pod) bool { return p == nil })
	if s, c := n.runtime.Left(); s != 0 || c != 0 {
		t.Errorf("%d sandboxes, %d containers are left", s, c)
	}
	dirs, err := os.ReadDir(filepath.Join(n.dir, "kubelet", "pods"))
	if err != nil || len(dirs) != 0 {
		t.Errorf("directories are left: %v %v", dirs, err)
	}
}
