package controllers_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/events"

	"skein.dev/skein/api/component"
	"skein.dev/skein/api/member"
	"skein.dev/skein/api/member/membertest"
	"skein.dev/skein/api/role"
	"skein.dev/skein/controllers"
	"skein.dev/skein/tests/realapi"
)

type cluster struct {
	*testing.T
	client  *fakeAPI
	members *membertest.View
}

func start(t *testing.T, objects ...runtime.Object) *cluster {
	t.Helper()
	client := newFakeAPI(t, objects...)
	c := &cluster{T: t, client: client, members: membertest.New("n1", "n2", "n3")}
	factory := informers.NewSharedInformerFactory(client, 0)
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	all, err := controllers.New(controllers.Config{
		As: func(string) (controllers.Access, error) {
			return controllers.Access{Kit: component.Kit{Client: client, Informers: factory, Recorder: &events.FakeRecorder{}, Log: log}}, nil
		},
		Log: log, Members: c.members, RootCA: []byte("the root"),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	factory.Start(ctx.Done())
	ended := make(chan error, 1)
	go func() { ended <- all.Run(ctx, role.Fence{Role: role.Controllers, Epoch: 3}, nil) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		factory.Shutdown()
	})
	return c
}

func (c *cluster) wait(what string, ok func() bool) {
	c.Helper()
	realapi.Eventually(c, what, ok)
}

func (c *cluster) pods() []corev1.Pod {
	c.Helper()
	l, err := c.client.CoreV1().Pods("default").List(c.Context(), metav1.ListOptions{})
	if err != nil {
		c.Fatal(err)
	}
	return l.Items
}

// kubelet makes every pod of the cluster run and be ready, until the test ends.
func (c *cluster) kubelet() {
	nodes := []string{"n1", "n2", "n3"}
	ctx := c.Context()
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	wg.Go(func() {
		for n := 0; ctx.Err() == nil; {
			l, err := c.client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
			if err != nil {
				return
			}
			for i := range l.Items {
				p := &l.Items[i]
				if p.Status.Phase == corev1.PodRunning {
					continue
				}
				n++
				p.Spec.NodeName = nodes[n%3]
				p, err := c.client.CoreV1().Pods("default").Update(ctx, p, metav1.UpdateOptions{})
				if err != nil {
					continue
				}
				p.Status = corev1.PodStatus{
					Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: fmt.Sprintf("10.0.0.%d", n)}},
					Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}},
				}
				_, _ = c.client.CoreV1().Pods("default").UpdateStatus(ctx, p, metav1.UpdateOptions{})
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	c.Cleanup(func() { cancel(); wg.Wait() })
}

func hello(replicas int32) *appsv1.Deployment {
	l := map[string]string{"app": "hello"}
	limit, deadline := int32(10), int32(600)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "hello", Namespace: "default", UID: "uid-hello", Generation: 1},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: l}, RevisionHistoryLimit: &limit, ProgressDeadlineSeconds: &deadline,
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: l},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "hello:1", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 80}}}}},
			},
		},
	}
}

func (c *cluster) complete(replicas int32, image string) {
	c.Helper()
	c.wait(fmt.Sprintf("%d replicas of %s", replicas, image), func() bool {
		d, err := c.client.AppsV1().Deployments("default").Get(c.Context(), "hello", metav1.GetOptions{})
		if err != nil {
			c.Fatal(err)
		}
		n := int32(0)
		for _, p := range c.pods() {
			if p.Spec.Containers[0].Image == image {
				n++
			}
		}
		return d.Status.AvailableReplicas == replicas && d.Status.UpdatedReplicas == replicas && d.Status.Replicas == replicas && n == replicas
	})
}

func TestDeploymentRollsOutScalesAndRollsBack(t *testing.T) {
	c := start(t)
	c.kubelet()
	client := c.client.AppsV1().Deployments("default")
	if _, err := client.Create(t.Context(), hello(3), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.complete(3, "hello:1")
	edit := func(f func(*appsv1.Deployment)) {
		t.Helper()
		d, err := client.Get(t.Context(), "hello", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		f(d)
		d.Generation++
		if _, err := client.Update(t.Context(), d, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	edit(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "hello:2" })
	c.complete(3, "hello:2")
	n := int32(7)
	edit(func(d *appsv1.Deployment) { d.Spec.Replicas = &n })
	c.complete(7, "hello:2")
	edit(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "hello:1" })
	c.complete(7, "hello:1")
	c.wait("revision 3", func() bool {
		d, err := client.Get(t.Context(), "hello", metav1.GetOptions{})
		return err == nil && d.Annotations["deployment.kubernetes.io/revision"] == "3"
	})
	sets, err := c.client.AppsV1().ReplicaSets("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(sets.Items) != 2 {
		t.Errorf("%d replicasets, want 2: a rollback reuses the old one", len(sets.Items))
	}
}

func TestServiceGetsSlicesAndEndpoints(t *testing.T) {
	c := start(t)
	c.kubelet()
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "hello", Namespace: "default", UID: "uid-svc"},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "hello"}, ClusterIP: "10.96.0.9", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}},
		},
	}
	if _, err := c.client.CoreV1().Services("default").Create(t.Context(), svc, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.client.AppsV1().Deployments("default").Create(t.Context(), hello(3), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.wait("three ready endpoints in one slice", func() bool {
		l, err := c.client.DiscoveryV1().EndpointSlices("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(l.Items) != 1 || len(l.Items[0].Endpoints) != 3 || len(l.Items[0].Ports) != 1 {
			return false
		}
		for _, e := range l.Items[0].Endpoints {
			if !*e.Conditions.Ready {
				return false
			}
		}
		return true
	})
	c.wait("three addresses in endpoints", func() bool {
		e, err := c.client.CoreV1().Endpoints("default").Get(t.Context(), "hello", metav1.GetOptions{})
		return err == nil && len(e.Subsets) == 1 && len(e.Subsets[0].Addresses) == 3
	})
}

func TestNamespaceGetsItsAccountAndRoot(t *testing.T) {
	c := start(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	c.wait("the account", func() bool {
		_, err := c.client.CoreV1().ServiceAccounts("default").Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil
	})
	c.wait("the root", func() bool {
		m, err := c.client.CoreV1().ConfigMaps("default").Get(t.Context(), "kube-root-ca.crt", metav1.GetOptions{})
		return err == nil && m.Data["ca.crt"] == "the root"
	})
	if err := c.client.CoreV1().ServiceAccounts("default").Delete(t.Context(), "default", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.wait("the account again", func() bool {
		_, err := c.client.CoreV1().ServiceAccounts("default").Get(t.Context(), "default", metav1.GetOptions{})
		return !apierrors.IsNotFound(err)
	})
}

func readyNode(name string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
	}
}

func TestPodsOfADeadPeerMoveAndUniqueOnesWait(t *testing.T) {
	c := start(t, readyNode("n1"), readyNode("n2"), readyNode("n3"))
	c.kubelet()
	yes := true
	mk := func(name, owner string) {
		seconds := int64(1)
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "apps/v1", Kind: owner, Name: "o", UID: "o", Controller: &yes,
			}}},
			Spec: corev1.PodSpec{NodeName: "n1", Tolerations: []corev1.Toleration{{
				Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds,
			}}},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
		}
		if _, err := c.client.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	mk("web", "Other")
	mk("db-0", "StatefulSet")
	c.members.SetState("n1", member.Dead)
	c.wait("the node is unknown and tainted", func() bool {
		n, err := c.client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return len(n.Spec.Taints) == 2 && n.Status.Conditions[0].Status == corev1.ConditionUnknown
	})
	c.wait("the web pod is gone", func() bool {
		_, err := c.client.CoreV1().Pods("default").Get(t.Context(), "web", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	p, err := c.client.CoreV1().Pods("default").Get(t.Context(), "db-0", metav1.GetOptions{})
	if err != nil {
		t.Fatalf("the unique pod: %v", err)
	}
	if p.Status.Conditions[0].Status != corev1.ConditionFalse {
		t.Errorf("pod of a lost node is still ready")
	}
	c.members.SetState("n1", member.Alive)
	n := readyNode("n1")
	live, err := c.client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n.Spec.Taints = live.Spec.Taints
	if _, err := c.client.CoreV1().Nodes().UpdateStatus(t.Context(), n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.wait("the taints are gone", func() bool {
		n, err := c.client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
		return err == nil && len(n.Spec.Taints) == 0
	})
}
