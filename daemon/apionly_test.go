package daemon_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/cert"

	"skein.dev/skein/api/status"
	"skein.dev/skein/daemon"
	"skein.dev/skein/identity"
)

// apiPeer is a peer that is only an API server, in this process.
type apiPeer struct {
	*testing.T
	config daemon.Config
	client *kubernetes.Clientset
}

func apiOnly(t *testing.T, name string) *apiPeer {
	t.Helper()
	dir := t.TempDir()
	c := daemon.DefaultConfig()
	c.Name, c.DataDir, c.StateDir = name, filepath.Join(dir, "data"), filepath.Join(dir, "run")
	c.Kubeconfig = filepath.Join(dir, "kubeconfig.yaml")
	c.Addresses = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	c.Port, c.NodePort, c.GuardPort = freePort(t), freePort(t), freePort(t)
	c.Engine, c.Scheduler = daemon.NoEngine, false
	return &apiPeer{T: t, config: c}
}

// freePort is one that neither TCP nor UDP uses.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // a TCP listener's
}

// run makes the peer with create and runs it until the test ends.
func (p *apiPeer) run(create func(ctx context.Context, c daemon.Config) error) {
	p.Helper()
	if err := p.config.Complete(); err != nil {
		p.Fatal(err)
	}
	if err := create(p.Context(), p.config); err != nil {
		p.Fatal(err)
	}
	p.serve()
}

// serve runs the peer that the data directory holds and waits until it is ready.
func (p *apiPeer) serve() {
	p.Helper()
	if err := os.MkdirAll(p.config.StateDir, 0o700); err != nil {
		p.Fatal(err)
	}
	log := &lockedBuffer{}
	ctx, cancel := context.WithCancel(context.WithoutCancel(p.Context()))
	ended := make(chan error, 1)
	go func() { ended <- daemon.Run(ctx, p.config.DataDir, "v1.37.2+skein.test", log) }()
	p.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			p.Errorf("peer %s: %v", p.config.Name, err)
		}
		if p.Failed() {
			p.Logf("peer %s:\n%s", p.config.Name, log)
		}
	})
	rest, err := clientcmd.BuildConfigFromFlags("", p.config.Kubeconfig)
	if err != nil {
		p.Fatal(err)
	}
	rest.QPS = -1
	if p.client, err = kubernetes.NewForConfig(rest); err != nil {
		p.Fatal(err)
	}
	p.eventually("peer "+p.config.Name+" is ready", func() bool {
		_, err := p.client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(p.Context())
		return err == nil
	})
}

func (p *apiPeer) eventually(what string, ok func() bool) {
	p.Helper()
	for range 3000 {
		if ok() {
			return
		}
		select {
		case <-p.Context().Done():
			p.Fatal("test ended while waiting: " + what)
		case <-time.After(20 * time.Millisecond):
		}
	}
	p.Fatal("never came: " + what)
}

func (p *apiPeer) status() status.Mesh {
	p.Helper()
	raw, err := p.client.Discovery().RESTClient().Get().AbsPath(status.Path).DoRaw(p.Context())
	if err != nil {
		return status.Mesh{}
	}
	var m status.Mesh
	if err := json.Unmarshal(raw, &m); err != nil {
		p.Fatal(err)
	}
	return m
}

type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// token makes a join token, as `skein token create` does.
func (p *apiPeer) token() string {
	p.Helper()
	cfg, err := clientcmd.BuildConfigFromFlags("", p.config.Kubeconfig)
	if err != nil {
		p.Fatal(err)
	}
	cas, err := cert.ParseCertsPEM(cfg.CAData)
	if err != nil {
		p.Fatal(err)
	}
	token, err := identity.NewToken(cas[0])
	if err != nil {
		p.Fatal(err)
	}
	secret := identity.TokenSecret(token, time.Hour, time.Now())
	if _, err := p.client.CoreV1().Secrets(secret.Namespace).Create(p.Context(), secret, metav1.CreateOptions{}); err != nil {
		p.Fatal(err)
	}
	return token.String()
}

func found(ctx context.Context, c daemon.Config) error { return daemon.Create(ctx, c, time.Now()) }

func (p *apiPeer) join(to *apiPeer) {
	p.Helper()
	at, token := net.JoinHostPort("127.0.0.1", strconv.Itoa(to.config.Port)), to.token()
	p.run(func(ctx context.Context, c daemon.Config) error { return daemon.Join(ctx, c, at, token, time.Now()) })
}

// replicaSets counts what the Deployment controller has made.
func (p *apiPeer) replicaSets() int {
	l, err := p.client.AppsV1().ReplicaSets("default").List(p.Context(), metav1.ListOptions{})
	if err != nil {
		return -1
	}
	return len(l.Items)
}

func deployment() *appsv1.Deployment {
	labels := map[string]string{"app": "idle"}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "idle"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "none"}}},
			},
		},
	}
}

func TestAnAPIOnlyPeerServesAndControlsButRunsNothing(t *testing.T) {
	p := apiOnly(t, "solo")
	p.run(found)
	if _, err := p.client.AppsV1().Deployments("default").Create(t.Context(), deployment(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p.eventually("the Deployment's ReplicaSet", func() bool { return p.replicaSets() == 1 })
	for _, who := range []string{"deployment-controller", "replicaset-controller"} {
		p.eventually("an event that "+who+" reports as itself", func() bool {
			l, err := p.client.EventsV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "reportingController=" + who})
			return err == nil && len(l.Items) > 0
		})
	}
	nodes, err := p.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(nodes.Items) != 0 {
		t.Errorf("%d nodes, want none", len(nodes.Items))
	}
	m := p.status()
	if m.Leaders.Scheduler != "" || m.Leaders.Controllers != "solo" || m.Leaders.Store != "solo" {
		t.Errorf("leaders %+v: want no scheduler, and solo for all else", m.Leaders)
	}
	if len(m.Peers) != 1 || !m.Peers[0].APIOnly || m.Peers[0].Ready {
		t.Errorf("peers %+v: want one without a Node", m.Peers)
	}
	if l, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p.config.NodePort))); err == nil {
		_ = l.Close()
		t.Error("something answers at the node API's port")
	}
}

func TestRolesGoToThePeersThatTakeThem(t *testing.T) {
	first, second := apiOnly(t, "first"), apiOnly(t, "second")
	first.run(found)
	second.config.Scheduler, second.config.Controllers = true, []string{"-ttl-controller"}
	second.join(first)
	first.eventually("the second peer schedules", func() bool { return first.status().Leaders.Scheduler == "second" })
	if m := first.status(); m.Leaders.Controllers != "first" {
		t.Errorf("controllers are led by %q; second declines them", m.Leaders.Controllers)
	}
	if _, err := second.client.AppsV1().Deployments("default").Create(t.Context(), deployment(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	second.eventually("the Deployment's ReplicaSet", func() bool { return second.replicaSets() == 1 })
}
