package real_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/events"

	"skein.dev/skein/api/component"
	"skein.dev/skein/engine"
	"skein.dev/skein/engine/programs"
	"skein.dev/skein/kubelet"
	"skein.dev/skein/tests/realapi"
)

const (
	box     = "local.test/busybox:1"
	busybox = "/bin/busybox"

	nodeAddress = "10.99.0.1"
)

// node is a kubelet, its containerd and an API in memory.
type node struct {
	testing.TB
	dir    string
	cgroup string
	engine *engine.Engine
	ctd    *exec.Cmd
	client kubernetes.Interface
	fake   *fake.Clientset // client, unless there is a real API
	api    *realapi.Server // nil, or whose client it is
	stop   func()
	config func(*kubelet.Config)
	made   int
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// newNode starts all of it with an API in memory; the cleanup looks that
// nothing is left.
func newNode(tb testing.TB) *node {
	tb.Helper()
	needs(tb)
	api := fake.NewClientset()
	n := &node{TB: tb, client: api, fake: api}
	api.PrependReactor("create", "serviceaccounts/token", n.token)
	n.open()
	return n
}

// newApart starts all of it against a real API server, which also reaches
// the node API; the kubelet is the node's own user there.
func newApart(tb testing.TB) *node {
	tb.Helper()
	needs(tb)
	api := realapi.Serve(tb, realapi.Config{NodePort: 10250})
	no := false
	_, err := api.Admin.CoreV1().ServiceAccounts("default").Create(tb.Context(), &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Name: "default"}, AutomountServiceAccountToken: &no,
	}, metav1.CreateOptions{})
	must(tb, err)
	n := &node{TB: tb, client: api.Admin, api: api}
	n.config = func(c *kubelet.Config) {
		c.Listen, c.TLS = nodeAddress+":10250", &tls.Config{
			MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{api.Certificate("n1", []net.IP{net.ParseIP(nodeAddress)})},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: api.Pool(),
		}
		c.Authorize = func(r *http.Request) error {
			if user := r.TLS.PeerCertificates[0].Subject.CommonName; user != realapi.KubeletUser {
				return fmt.Errorf("user %q may not", user)
			}
			return nil
		}
	}
	n.open()
	return n
}

// needs skips the test where containers cannot run.
func needs(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("containers need root")
	}
	if _, err := programs.Read(programs.Runc); errors.Is(err, programs.ErrNotBuilt) {
		tb.Skip("no static programs; run: make programs")
	}
	if _, err := os.Stat(busybox); err != nil {
		tb.Skip("no static busybox to run in containers")
	}
}

// open starts the engine and the kubelet.
func (n *node) open() {
	t := n.TB
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "sk-kub-") // t.TempDir is too long a path for a socket
	must(t, err)
	n.dir, n.cgroup = dir, fmt.Sprintf("skein-kubelet-real-%d", os.Getpid())
	n.engine, err = engine.New(engine.Config{
		DataDir: filepath.Join(dir, "data"), StateDir: filepath.Join(dir, "s"), CNIBinDirs: []string{filepath.Join(dir, "cni")},
	})
	must(t, err)
	must(t, n.engine.Prepare(t.Context()))
	self, err := os.Executable()
	must(t, err)
	must(t, os.Mkdir(filepath.Join(dir, "cni"), 0o755))
	must(t, os.Symlink(self, filepath.Join(dir, "cni", testPlugin)))
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"test","plugins":[{"type":%q}]}`, testPlugin)
	must(t, os.WriteFile(filepath.Join(n.engine.CNIConfDir(), "10-test.conflist"), []byte(conf), 0o600))
	n.startEngine()
	t.Cleanup(n.clean)
	_, err = n.engine.Import(t.Context(), bytes.NewReader(boxImage(t)))
	must(t, err)
	n.start()
}

// kit is the kubelet's access to the API.
func (n *node) kit() component.Kit {
	n.Helper()
	kit := component.Kit{
		Peer: "n1", Client: n.client, Informers: informers.NewSharedInformerFactory(n.client, 0), Recorder: events.NewFakeRecorder(10000),
	}
	if n.api != nil {
		kit = n.api.Kit("n1", "kubelet", "system:node:n1", "system:nodes")
		kit.Informers = kubelet.Informers(kit.Client, "n1")
	}
	kit.Log = slog.New(slog.NewTextHandler(n.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	return kit
}

func (n *node) startEngine() {
	n.Helper()
	p := n.engine.Process()
	log, err := os.OpenFile(filepath.Join(n.dir, "containerd.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	must(n, err)
	n.ctd = exec.Command(p.Path, p.Argv[1:]...)
	n.ctd.Args[0] = p.Argv[0]
	n.ctd.Env, n.ctd.Stdout, n.ctd.Stderr = p.Env, log, log
	must(n, n.ctd.Start())
	must(n, log.Close())
	ctx, cancel := context.WithTimeout(n.Context(), time.Minute)
	defer cancel()
	must(n, n.engine.Ready(ctx))
}

// start runs a kubelet until n.stop.
func (n *node) start() {
	n.Helper()
	cfg := kubelet.Config{
		Kit: n.kit(), Apart: n.api != nil,
		NodeIPs: []netip.Addr{netip.MustParseAddr(nodeAddress)}, CRIEndpoint: n.engine.Endpoint(),
		RootDir: filepath.Join(n.dir, "kubelet"), LogDir: filepath.Join(n.dir, "logs"), CgroupRoot: n.cgroup,
		ClusterDNS: []netip.Addr{netip.MustParseAddr("10.96.0.10")}, Listen: "-", Version: "v1.37.2",
		// Whatever else fills this machine's disk is not the tests' matter.
		EvictionHard: map[string]string{"memory.available": "100Mi"}, ImageHigh: 100,
	}
	if n.config != nil {
		n.config(&cfg)
	}
	k, err := kubelet.New(cfg)
	must(n, err)
	ctx, cancel := context.WithCancel(context.Background())
	cfg.Kit.Informers.Start(ctx.Done())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	n.stop = func() {
		n.stop = func() {}
		cancel()
		if err := <-done; err != nil {
			n.Errorf("Run: %v", err)
		}
		cfg.Kit.Informers.Shutdown()
	}
}

// clean deletes all pods, stops everything and looks for traces.
func (n *node) clean() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	n.stop()
	n.start()
	list, err := n.client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
	must(n, err)
	for i := range list.Items {
		if list.Items[i].DeletionTimestamp == nil {
			n.removeCtx(ctx, list.Items[i].Name, 1) // with none a real API forgets it at once
		}
	}
	for left := len(list.Items); left > 0 && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		list, err := n.client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
		must(n, err)
		left = len(list.Items)
	}
	if ctx.Err() != nil {
		n.Error("pods did not end")
	}
	n.stop()
	must(n, n.ctd.Process.Signal(os.Interrupt))
	_ = n.ctd.Wait() // it was told to end
	if pods, err := os.ReadDir(filepath.Join(n.dir, "kubelet", "pods")); err != nil || len(pods) > 0 {
		n.Errorf("pod directories left: %v %v", pods, err)
	}
	for _, base := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/"} {
		left, _ := filepath.Glob(base + n.cgroup + "/kubepods/*/pod*")
		if len(left) > 0 {
			n.Errorf("pod cgroups left: %v", left)
		}
		for _, sub := range []string{"/kubepods/burstable", "/kubepods/besteffort", "/kubepods", ""} {
			dirs, _ := filepath.Glob(base + n.cgroup + sub)
			for _, d := range dirs {
				_ = os.Remove(d)
			}
		}
	}
	if n.Failed() {
		b, err := os.ReadFile(filepath.Join(n.dir, "containerd.log"))
		n.Logf("containerd (%v): %s", err, b[max(0, len(b)-4000):])
	}
	_ = os.RemoveAll(n.dir) // the namespace's mounts go with it
}

// token answers token requests with a token that names its turn.
func (n *node) token(ktesting.Action) (bool, runtime.Object, error) {
	n.made++
	return true, &authv1.TokenRequest{Status: authv1.TokenRequestStatus{
		Token: fmt.Sprintf("token-%d", n.made), ExpirationTimestamp: metav1.NewTime(time.Now().Add(time.Hour)),
	}}, nil
}

// boxImage is an image of one busybox.
func boxImage(tb testing.TB) []byte {
	tb.Helper()
	program, err := os.ReadFile(busybox)
	must(tb, err)
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	for _, d := range []string{"bin", "etc", "tmp", "proc", "sys", "dev", "root"} {
		must(tb, tw.WriteHeader(&tar.Header{Name: d + "/", Typeflag: tar.TypeDir, Mode: 0o755}))
	}
	must(tb, tw.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(program))}))
	_, err = tw.Write(program)
	must(tb, err)
	for _, l := range []string{"sh", "sleep", "cat", "ls", "id", "echo", "wget", "httpd", "true", "false", "stat", "kill", "touch", "hostname", "seq", "mkdir"} {
		must(tb, tw.WriteHeader(&tar.Header{Name: "bin/" + l, Typeflag: tar.TypeSymlink, Linkname: "busybox"}))
	}
	must(tb, tw.Close())
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	must(tb, err)
	img, err := mutate.AppendLayers(empty.Image, l)
	must(tb, err)
	img, err = mutate.ConfigFile(img, configured(tb, img))
	must(tb, err)
	ref, err := name.NewTag(box)
	must(tb, err)
	var out bytes.Buffer
	must(tb, tarball.Write(ref, img, &out))
	return out.Bytes()
}

func configured(tb testing.TB, img v1.Image) *v1.ConfigFile {
	tb.Helper()
	c, err := img.ConfigFile()
	must(tb, err)
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Config.Env = "linux", "amd64", []string{"PATH=/bin"}
	return c
}

// pod runs a shell script in a container of busybox.
func pod(name, script string, edit func(*corev1.Pod)) *corev1.Pod {
	zero := int64(2)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID("uid-" + name), Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			NodeName: "n1", RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: &zero, ServiceAccountName: "default",
			DNSPolicy: corev1.DNSClusterFirst,
			Containers: []corev1.Container{{
				Name: "app", Image: box, Command: []string{"sh", "-c", script}, ImagePullPolicy: corev1.PullNever,
				TerminationMessagePath: "/dev/termination-log",
			}},
		},
	}
	if edit != nil {
		edit(p)
	}
	return p
}

func (n *node) create(p *corev1.Pod) {
	n.Helper()
	_, err := n.client.CoreV1().Pods("default").Create(n.Context(), p, metav1.CreateOptions{})
	must(n, err)
}

func (n *node) remove(name string, grace int64) { n.removeCtx(n.Context(), name, grace) }

func (n *node) removeCtx(ctx context.Context, name string, grace int64) {
	n.Helper()
	if n.api != nil {
		must(n, n.client.CoreV1().Pods("default").Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &grace}))
		return
	}
	p, err := n.client.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{})
	must(n, err)
	now := metav1.Now()
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &now, &grace
	_, err = n.client.CoreV1().Pods("default").Update(ctx, p, metav1.UpdateOptions{})
	must(n, err)
}

func (n *node) eventually(name, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	n.Helper()
	var last *corev1.Pod
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
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
		n.Fatalf("%s: not %s: last status %+v", name, what, last.Status)
	}
	n.Fatalf("%s: not %s: no such pod", name, what)
	return nil
}

func ready(p *corev1.Pod) bool {
	if p == nil {
		return false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func gone(p *corev1.Pod) bool { return p == nil }

func ended(p *corev1.Pod) bool {
	return p != nil && (p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed)
}

// log returns a container's log as it is on disk.
func (n *node) log(p *corev1.Pod, container string) string {
	n.Helper()
	b, err := os.ReadFile(filepath.Join(n.dir, "logs", p.Namespace+"_"+p.Name+"_"+string(p.UID), container, "0.log"))
	must(n, err)
	var out []byte
	for _, l := range bytes.SplitAfter(b, []byte("\n")) {
		if f := bytes.SplitN(l, []byte(" "), 4); len(f) == 4 {
			out = append(out, f[3]...)
		}
	}
	return string(out)
}
