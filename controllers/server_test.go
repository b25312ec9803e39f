package controllers_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"

	"skein.dev/skein/api/component"
	"skein.dev/skein/api/member"
	"skein.dev/skein/api/member/membertest"
	"skein.dev/skein/api/role"
	"skein.dev/skein/apiserver/kinds"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/controllers"
	"skein.dev/skein/controllers/csr"
	"skein.dev/skein/sched"
	"skein.dev/skein/tests/realapi"
)

// mesh is the real API server on a memory store, with the controllers and
// the scheduler as its clients over TLS, each controller as its own user under
// RBAC, and kubelets that only pretend to run pods. The test fails where a
// user's rights do not reach.
type mesh struct {
	*testing.T
	server  *realapi.Server
	admin   *kubernetes.Clientset
	members *membertest.View
}

func serve(t *testing.T) *mesh {
	t.Helper()
	m := &mesh{T: t, members: membertest.New(), server: realapi.Serve(t, realapi.Config{})}
	m.admin = m.server.Admin
	for _, n := range []string{"n1", "n2", "n3"} {
		m.node(n)
	}
	m.components()
	m.kubelets()
	return m
}

// background runs f until the test ends, after what was started later.
func (m *mesh) background(f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	m.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			m.Errorf("part ended: %v", err)
		}
	})
}

func (m *mesh) components() {
	m.Helper()
	level := slog.LevelError
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	kit := func(name, user string) component.Kit {
		k := m.server.Kit("n1", name, user)
		k.Log = log.With("component", name)
		k.Informers = informers.NewSharedInformerFactory(k.Client, 0)
		return k
	}
	sk := kit("default-scheduler", "system:kube-scheduler")
	// What controllers read is read for all of them by their common user, as a
	// replica would; each writes as its own.
	shared := informers.NewSharedInformerFactory(m.server.Client(m.server.Witnessed("system:kube-controller-manager")), 0)
	as := func(user string) (controllers.Access, error) {
		groups := []string(nil)
		if ns, _, err := serviceaccount.SplitUsername(user); err == nil {
			groups = serviceaccount.MakeGroupNames(ns)
		}
		k := m.server.Kit("n1", user[strings.LastIndex(user, ":")+1:], user, groups...)
		k.Log, k.Informers = log.With("component", user), shared
		md, err := metadata.NewForConfig(m.server.Witnessed(user, groups...))
		return controllers.Access{Kit: k, Metadata: md}, err
	}
	cert, key := m.server.Authority()
	authority := csr.Authority{Cert: cert, Key: key}
	all, err := controllers.New(controllers.Config{
		As: as, Log: log, Members: m.members, RootCA: m.server.RootPEM(), Serves: served,
		MintToken: func(a *corev1.ServiceAccount, _ *corev1.Secret) (string, error) { return "token of " + a.Name, nil },
		ClientCA:  &authority, ServingCA: &authority,
	})
	if err != nil {
		m.Fatal(err)
	}
	s, err := sched.New(sched.Config{Kit: sk, Volumes: true})
	if err != nil {
		m.Fatal(err)
	}
	for _, f := range []informers.SharedInformerFactory{shared, sk.Informers} {
		m.background(func(ctx context.Context) error {
			f.Start(ctx.Done())
			<-ctx.Done()
			f.Shutdown()
			return nil
		})
	}
	m.background(func(ctx context.Context) error {
		return all.Run(ctx, role.Fence{Role: role.Controllers, Epoch: 1}, func() {})
	})
	m.background(func(ctx context.Context) error {
		return s.Run(ctx, role.Fence{Role: role.Scheduler, Epoch: 1}, func() {})
	})
}

// served are the kinds that the test's server declares.
func served(gr schema.GroupResource) bool {
	return slices.ContainsFunc(kinds.All(), func(k registry.Kind) bool { return k.Resource.GroupResource() == gr })
}

func (m *mesh) node(name string) {
	m.Helper()
	n, err := m.admin.CoreV1().Nodes().Create(m.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{corev1.LabelHostname: name},
	}}, metav1.CreateOptions{})
	if err != nil {
		m.Fatal(err)
	}
	n.Status = corev1.NodeStatus{
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("110"),
		},
	}
	if _, err := m.admin.CoreV1().Nodes().UpdateStatus(m.Context(), n, metav1.UpdateOptions{}); err != nil {
		m.Fatal(err)
	}
	m.members.SetState(member.Name(name), member.Alive)
}

// endsAs is the annotation that tells a test's kubelet how a pod ends.
const endsAs = "test/ends-as"

// kubelets make bound pods ready and let deleted ones end, on living peers.
func (m *mesh) kubelets() {
	m.background(func(ctx context.Context) error {
		client, ip := m.server.Client(m.server.User("kubelets", "system:masters")), 0
		for {
			l, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
			for i := 0; err == nil && i < len(l.Items); i++ {
				p := &l.Items[i]
				if p.Spec.NodeName == "" || m.members.State(member.Name(p.Spec.NodeName)) != member.Alive {
					continue
				}
				if p.DeletionTimestamp != nil {
					_ = client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
					continue
				}
				if p.Status.Phase == corev1.PodRunning && p.Annotations[endsAs] != "" {
					p.Status.Phase = corev1.PodPhase(p.Annotations[endsAs])
					_, _ = client.CoreV1().Pods(p.Namespace).UpdateStatus(ctx, p, metav1.UpdateOptions{})
					continue
				}
				if p.Status.Phase != corev1.PodPending {
					continue
				}
				ip++
				p.Status.Phase, p.Status.PodIP = corev1.PodRunning, fmt.Sprintf("10.0.%d.%d", ip/250, 1+ip%250)
				p.Status.PodIPs = []corev1.PodIP{{IP: p.Status.PodIP}}
				p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()})
				_, _ = client.CoreV1().Pods(p.Namespace).UpdateStatus(ctx, p, metav1.UpdateOptions{})
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
}

func (m *mesh) wait(what string, ok func() bool) {
	m.Helper()
	realapi.Eventually(m, what, ok)
}

func (m *mesh) running(ns string) map[string]int {
	m.Helper()
	l, err := m.admin.CoreV1().Pods(ns).List(m.Context(), metav1.ListOptions{})
	if err != nil {
		m.Fatal(err)
	}
	out := map[string]int{}
	for _, p := range l.Items {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && p.DeletionTimestamp == nil {
				out[p.Spec.NodeName]++
			}
		}
	}
	return out
}

func (m *mesh) deploy(ns string, replicas int32) {
	m.Helper()
	d := hello(replicas)
	d.Namespace, d.UID, d.Generation = ns, "", 0
	if _, err := m.admin.AppsV1().Deployments(ns).Create(m.Context(), d, metav1.CreateOptions{}); err != nil {
		m.Fatal(err)
	}
	m.wait("all replicas run", func() bool {
		n := 0
		for _, c := range m.running(ns) {
			n += c
		}
		return n == int(replicas)
	})
}

func (m *mesh) namespace(name string) {
	m.Helper()
	_, err := m.admin.CoreV1().Namespaces().Create(m.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		m.Fatal(err)
	}
	m.wait("the namespace has its account", func() bool {
		_, err := m.admin.CoreV1().ServiceAccounts(name).Get(m.Context(), "default", metav1.GetOptions{})
		return err == nil
	})
}

func TestRealAPIPlacesMovesAndDeletes(t *testing.T) {
	m := serve(t)
	m.namespace("app")
	m.deploy("app", 3)
	if got := m.running("app"); len(got) != 3 {
		t.Errorf("three replicas run on %v, want one on each node", got)
	}

	m.members.SetState("n3", member.Dead)
	m.wait("the pods have moved", func() bool {
		got := m.running("app")
		return got["n3"] == 0 && got["n1"]+got["n2"] == 3
	})
	m.wait("nothing hangs in Terminating", func() bool {
		l, err := m.admin.CoreV1().Pods("app").List(t.Context(), metav1.ListOptions{})
		return err == nil && len(l.Items) == 3
	})

	policy := metav1.DeletePropagationForeground
	if err := m.admin.AppsV1().Deployments("app").Delete(t.Context(), "hello", metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
		t.Fatal(err)
	}
	m.wait("the deployment goes last", func() bool {
		_, err := m.admin.AppsV1().Deployments("app").Get(t.Context(), "hello", metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return false
		}
		l, err := m.admin.AppsV1().ReplicaSets("app").List(t.Context(), metav1.ListOptions{})
		if err != nil || len(l.Items) > 0 {
			t.Fatalf("replicasets are left: %v %v", l, err)
		}
		return true
	})
}

func TestRealAPIDeletesInTheBackgroundAndOrphans(t *testing.T) {
	m := serve(t)
	m.namespace("app")
	for _, policy := range []metav1.DeletionPropagation{metav1.DeletePropagationOrphan, metav1.DeletePropagationBackground} {
		m.deploy("app", 2)
		m.wait("the deployment has its replicaset, new or adopted", func() bool {
			sets, err := m.admin.AppsV1().ReplicaSets("app").List(t.Context(), metav1.ListOptions{})
			return err == nil && len(sets.Items) == 1 && len(sets.Items[0].OwnerReferences) == 1
		})
		if err := m.admin.AppsV1().Deployments("app").Delete(t.Context(), "hello", metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
			t.Fatal(err)
		}
		m.wait("the end of "+string(policy), func() bool {
			_, err := m.admin.AppsV1().Deployments("app").Get(t.Context(), "hello", metav1.GetOptions{})
			l, lerr := m.admin.AppsV1().ReplicaSets("app").List(t.Context(), metav1.ListOptions{})
			if lerr != nil {
				t.Fatal(lerr)
			}
			if policy == metav1.DeletePropagationBackground {
				return apierrors.IsNotFound(err) && len(l.Items) == 0 && len(m.running("app")) == 0
			}
			return apierrors.IsNotFound(err) && len(l.Items) == 1 && len(l.Items[0].OwnerReferences) == 0
		})
	}
}

func TestRealAPIEmptiesNamespaces(t *testing.T) {
	m := serve(t)
	var wg sync.WaitGroup
	for i := range 3 {
		ns := fmt.Sprintf("ns-%d", i)
		wg.Go(func() { m.namespace(ns) })
	}
	wg.Wait()
	m.deploy("ns-0", 2)
	if err := m.admin.CoreV1().Namespaces().Delete(t.Context(), "ns-0", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	m.wait("the namespace is gone", func() bool {
		_, err := m.admin.CoreV1().Namespaces().Get(t.Context(), "ns-0", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	if _, err := m.admin.CoreV1().ServiceAccounts("ns-1").Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
		t.Errorf("another namespace's account: %v", err)
	}
}
