package controllers_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"

	"skein.dev/skein/api/component"
	"skein.dev/skein/api/member"
	"skein.dev/skein/api/role"
	"skein.dev/skein/apiserver"
	"skein.dev/skein/apiserver/kinds"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/storage/memstore"
	"skein.dev/skein/controllers"
	"skein.dev/skein/controllers/csr"
	"skein.dev/skein/sched"
)

// mesh is the real API server on a memory store, with the controllers and
// the scheduler as its clients over TLS, each as its own user under RBAC, and
// kubelets that only pretend to run pods.
type mesh struct {
	*testing.T
	admin   *kubernetes.Clientset
	members *members

	host  string
	caPEM []byte
	ca    *x509.Certificate
	caKey *ecdsa.PrivateKey
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// issue signs a certificate for a user, or for the server without a name.
func (m *mesh) issue(name string, groups ...string) (certPEM, keyPEM []byte) {
	m.Helper()
	key := newKey(m.T)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name, Organization: groups},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, signer := m.ca, m.caKey
	if parent == nil {
		tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		m.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		m.Fatal(err)
	}
	if m.ca == nil {
		m.caKey = key
		if m.ca, err = x509.ParseCertificate(der); err != nil {
			m.Fatal(err)
		}
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})
}

func (m *mesh) user(name string, groups ...string) *rest.Config {
	m.Helper()
	certPEM, keyPEM := m.issue(name, groups...)
	return &rest.Config{Host: "https://" + m.host, QPS: -1, TLSClientConfig: rest.TLSClientConfig{CAData: m.caPEM, CertData: certPEM, KeyData: keyPEM}}
}

func (m *mesh) client(cfg *rest.Config) *kubernetes.Clientset {
	m.Helper()
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		m.Fatal(err)
	}
	return c
}

func serve(t *testing.T) *mesh {
	t.Helper()
	m := &mesh{T: t, members: &members{peers: map[member.Name]member.State{}, changed: make(chan struct{})}}
	m.caPEM, _ = m.issue("authority")
	certPEM, keyPEM := m.issue("")
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.host = ln.Addr().String()
	pool := x509.NewCertPool()
	pool.AddCert(m.ca)
	server, err := apiserver.New(apiserver.Config{
		Peer: "n1", Store: memstore.New(), Kinds: kinds.All(), Listener: ln, TLS: &tls.Config{Certificates: []tls.Certificate{cert}},
		ClientCAs: pool, ServiceAccountKey: newKey(t), Sealing: []apiserver.SealingKey{{ID: "k", Key: make([]byte, 32)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	m.background(func(ctx context.Context) error { return server.Run(ctx) })
	m.admin = m.client(m.user("kubernetes-admin", "system:masters"))
	m.wait("the server is ready", func() bool {
		_, err := m.admin.RESTClient().Get().AbsPath("/readyz").DoRaw(t.Context())
		return err == nil
	})
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
	factory := informers.NewSharedInformerFactory(m.admin, 0)
	kit := func(name, user string) (component.Kit, *rest.Config) {
		cfg := m.user(user)
		client := m.client(cfg)
		b := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
		ctx, cancel := context.WithCancel(context.Background())
		m.Cleanup(func() { cancel(); b.Shutdown() })
		if err := b.StartRecordingToSinkWithContext(ctx); err != nil {
			m.Fatal(err)
		}
		return component.Kit{
			Peer: "n1", Client: client, Informers: factory, Recorder: b.NewRecorder(scheme.Scheme, name), Log: log.With("component", name),
		}, cfg
	}
	ck, cfg := kit("controllers", "system:kube-controller-manager")
	md, err := metadata.NewForConfig(cfg)
	if err != nil {
		m.Fatal(err)
	}
	authority := csr.Authority{Cert: m.ca, Key: m.caKey}
	all, err := controllers.New(controllers.Config{Kit: ck, Members: m.members, Metadata: md, RootCA: m.caPEM, Serves: served, MintToken: func(a *corev1.ServiceAccount, _ *corev1.Secret) (string, error) { return "token of " + a.Name, nil }, ClientCA: &authority, ServingCA: &authority})
	if err != nil {
		m.Fatal(err)
	}
	sk, _ := kit("default-scheduler", "system:kube-scheduler")
	s, err := sched.New(sched.Config{Kit: sk, Volumes: true})
	if err != nil {
		m.Fatal(err)
	}
	m.background(func(ctx context.Context) error {
		factory.Start(ctx.Done())
		<-ctx.Done()
		factory.Shutdown()
		return nil
	})
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
	m.members.set(member.Name(name), member.Alive)
}

// endsAs is the annotation that tells a test's kubelet how a pod ends.
const endsAs = "test/ends-as"

// kubelets make bound pods ready and let deleted ones end, on living peers.
func (m *mesh) kubelets() {
	m.background(func(ctx context.Context) error {
		client, ip := m.client(m.user("kubelets", "system:masters")), 0
		for {
			l, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
			for i := 0; err == nil && i < len(l.Items); i++ {
				p := &l.Items[i]
				if p.Spec.NodeName == "" || m.members.state(member.Name(p.Spec.NodeName)) != member.Alive {
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

func (m *members) state(n member.Name) member.State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peers[n]
}

func (m *mesh) wait(what string, ok func() bool) {
	m.Helper()
	for range 3000 {
		if ok() {
			return
		}
		select {
		case <-m.Context().Done():
			m.Fatal("test ended while waiting: " + what)
		case <-time.After(10 * time.Millisecond):
		}
	}
	m.Fatal("never came: " + what)
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

	m.members.set("n3", member.Dead)
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
