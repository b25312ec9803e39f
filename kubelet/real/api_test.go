package real_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"skein.dev/skein/kubelet"
)

const (
	apiAddress = "127.0.0.1:10250"
	password   = "Bearer let-me-in"
)

func selfSigned(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "n1"}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	must(t, err)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func client() *rest.Config {
	return &rest.Config{Host: "https://" + apiAddress, BearerToken: strings.TrimPrefix(password, "Bearer "), TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
}

// get asks the node API and returns status and body.
func get(t *testing.T, path string, authorized bool) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+apiAddress+path, nil)
	must(t, err)
	if authorized {
		req.Header.Set("Authorization", password)
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	resp, err := c.Do(req)
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(b)
}

func TestNodeAPI(t *testing.T) {
	n := newNode(t)
	n.stop()
	n.config = func(c *kubelet.Config) {
		c.Listen, c.TLS = apiAddress, selfSigned(t)
		c.Authorize = func(r *http.Request) error {
			if r.Header.Get("Authorization") != password {
				return errors.New("wrong token")
			}
			return nil
		}
	}
	n.start()
	// The engine reads the two streams each by itself: what is to be last in
	// the log must come well after the rest.
	n.create(pod("web", "for i in $(seq 1 20); do echo line $i; done; sleep 1; echo oops >&2; mkdir /www; echo hello > /www/index.html; httpd -f -p 8080 -h /www", func(p *corev1.Pod) {
		p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(8080)}},
			PeriodSeconds: 1, FailureThreshold: 30,
		}
	}))
	n.eventually("web", "ready", ready)
	t.Run("refuses strangers", func(t *testing.T) {
		if code, _ := get(t, "/pods", false); code != http.StatusForbidden {
			t.Errorf("pods: %d", code)
		}
		if code, body := get(t, "/healthz", false); code != http.StatusOK || body != "ok" {
			t.Errorf("healthz: %d %s", code, body)
		}
	})
	t.Run("logs", func(t *testing.T) {
		for query, want := range map[string]string{
			"tailLines=2":                     "line 20\noops\n",
			"limitBytes=6":                    "line 1",
			"stream=Stderr":                   "oops\n",
			"sinceTime=2100-01-01T00:00:00Z":  "",
			"tailLines=0":                     "",
			"sinceSeconds=1000&limitBytes=13": "line 1\nline 2",
		} {
			if code, body := get(t, "/containerLogs/default/web/app?"+query, true); code != http.StatusOK || body != want {
				t.Errorf("%s: %d %q, want %q", query, code, body, want)
			}
		}
		if code, body := get(t, "/containerLogs/default/web/app?previous=true", true); code != http.StatusBadRequest || !strings.Contains(body, "previous terminated container") {
			t.Errorf("previous: %d %s", code, body)
		}
		if code, _ := get(t, "/containerLogs/default/nobody/app", true); code != http.StatusNotFound {
			t.Errorf("no pod: %d", code)
		}
		if _, body := get(t, "/containerLogs/default/web/app?timestamps=true&tailLines=1", true); !strings.HasPrefix(body, "20") {
			t.Errorf("timestamps: %s", body)
		}
	})
	t.Run("exec", func(t *testing.T) {
		u := &url.URL{Scheme: "https", Host: apiAddress, Path: "/exec/default/web/app", RawQuery: url.Values{
			"command": {"sh", "-c", "cat; echo err >&2; exit 3"}, "input": {"1"}, "output": {"1"}, "error": {"1"},
		}.Encode()}
		ex, err := remotecommand.NewSPDYExecutor(client(), http.MethodPost, u)
		must(t, err)
		var out, stderr bytes.Buffer
		err = ex.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out, Stderr: &stderr})
		var code exec.CodeExitError
		if !errors.As(err, &code) || code.Code != 3 || out.String() != "hello" || stderr.String() != "err\n" {
			t.Errorf("exec: %v, %q, %q", err, out.String(), stderr.String())
		}
	})
	t.Run("port-forward", func(t *testing.T) { forward(t) })
	t.Run("figures", func(t *testing.T) {
		_, body := get(t, "/stats/summary", true)
		var s stats.Summary
		if err := json.Unmarshal([]byte(body), &s); err != nil || len(s.Pods) != 1 || s.Pods[0].PodRef.Name != "web" || s.Pods[0].Memory == nil {
			t.Errorf("summary: %v %s", err, body)
		}
		if _, body := get(t, "/metrics/resource", true); !strings.Contains(body, `container_memory_working_set_bytes{container="app",namespace="default",pod="web"}`) {
			t.Errorf("resource metrics: %s", body)
		}
		if s.Node.Fs == nil || s.Node.Fs.CapacityBytes == nil || s.Node.Runtime == nil || s.Node.Runtime.ImageFs == nil {
			t.Errorf("summary has no disks: %s", body)
		}
		_, body = get(t, "/metrics", true)
		for _, want := range []string{"kubelet_running_pods 1", `kubelet_running_containers{container_state="running"} 1`, `kubelet_node_name{node="n1"} 1`} {
			if !strings.Contains(body, want) {
				t.Errorf("metrics lack %s", want)
			}
		}
		_, body = get(t, "/metrics/cadvisor", true)
		for _, want := range []string{
			"container_cpu_usage_seconds_total{container=\"app\"", "container_memory_working_set_bytes{container=\"app\"", "machine_memory_bytes ",
			"container_fs_usage_bytes{container=\"app\"",
		} {
			if !strings.Contains(body, want) {
				t.Errorf("cAdvisor's metrics lack %s in\n%s", want, body)
			}
		}
	})
}

func forward(t *testing.T) {
	t.Helper()
	tr, up, err := spdy.RoundTripperFor(client())
	must(t, err)
	u := &url.URL{Scheme: "https", Host: apiAddress, Path: "/portForward/default/web"}
	if got := through(t, spdy.NewDialer(up, &http.Client{Transport: tr}, http.MethodPost, u)); got != "hello\n" {
		t.Errorf("through the port: %q", got)
	}
}

func TestContainersOutliveContainerdAndKubelet(t *testing.T) {
	n := newNode(t)
	n.create(pod("web", "sleep 1000", nil))
	before := n.eventually("web", "ready", ready).Status.ContainerStatuses[0]
	must(t, n.ctd.Process.Kill())
	_ = n.ctd.Wait() // it was killed
	n.stop()
	n.start() // with no runtime there
	n.startEngine()
	n.create(pod("next", "sleep 1000", nil))
	n.eventually("next", "ready", ready)
	after := n.eventually("web", "ready", ready).Status.ContainerStatuses[0]
	if after.ContainerID != before.ContainerID || after.RestartCount != 0 {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

func TestAnIdleNodeWritesNothing(t *testing.T) {
	n := newNode(t)
	n.create(pod("web", "sleep 1000", func(p *corev1.Pod) {
		p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}, PeriodSeconds: 1}
	}))
	n.eventually("web", "ready", ready)
	time.Sleep(2 * time.Second) // the image list comes a moment later
	before := len(n.fake.Actions())
	time.Sleep(15 * time.Second) // more than one period of the node's check
	for _, a := range n.fake.Actions()[before:] {
		if v := a.GetVerb(); v != "get" && v != "list" && v != "watch" {
			t.Errorf("wrote: %s %s", v, a.GetResource().Resource)
		}
	}
}
