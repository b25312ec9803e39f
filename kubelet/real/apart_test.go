package real_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/httpstream" //nolint:staticcheck // client-go's dialers are still of this type
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

// executors are the two ways in which kubectl opens the streams of a process:
// the old one and the one of today.
func executors(t *testing.T, cfg *rest.Config, u *url.URL) map[string]remotecommand.Executor {
	t.Helper()
	old, err := remotecommand.NewSPDYExecutor(cfg, http.MethodPost, u)
	must(t, err)
	now, err := remotecommand.NewWebSocketExecutor(cfg, http.MethodGet, u.String())
	must(t, err)
	return map[string]remotecommand.Executor{"SPDY": old, "WebSocket": now}
}

func TestAnAPIApartReachesThePodsOfANode(t *testing.T) {
	n := newApart(t)
	n.create(pod("web", "echo started; mkdir /www; echo hello > /www/index.html; httpd -f -p 8080 -h /www", func(p *corev1.Pod) {
		p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(8080)}},
			PeriodSeconds: 1, FailureThreshold: 30,
		}
	}))
	// It ends with its input, which is closed after the first who attaches.
	n.create(pod("talk", "while read line; do echo you said $line; done; echo bye >&2", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.Containers[0].Stdin = true
	}))
	n.create(pod("shell", "", func(p *corev1.Pod) {
		p.Spec.Containers[0].Stdin, p.Spec.Containers[0].TTY, p.Spec.Containers[0].Command = true, true, []string{"sh"}
	}))
	for _, name := range []string{"web", "talk", "shell"} {
		n.eventually(name, "ready", ready)
	}
	cfg := n.api.User("kubernetes-admin", "system:masters")
	at := func(pod, sub string) *rest.Request {
		return n.api.Admin.CoreV1().RESTClient().Post().Namespace("default").Resource("pods").Name(pod).SubResource(sub)
	}
	t.Run("logs", func(t *testing.T) {
		b, err := n.client.CoreV1().Pods("default").GetLogs("web", &corev1.PodLogOptions{}).DoRaw(t.Context())
		if err != nil || string(b) != "started\n" {
			t.Errorf("got %q, %v", b, err)
		}
	})
	t.Run("exec", func(t *testing.T) {
		u := at("web", "exec").VersionedParams(&corev1.PodExecOptions{
			Command: []string{"sh", "-c", "cat; echo err >&2; exit 3"}, Stdin: true, Stdout: true, Stderr: true,
		}, scheme.ParameterCodec).URL()
		for name, ex := range executors(t, cfg, u) {
			var out, stderr bytes.Buffer
			err := ex.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out, Stderr: &stderr})
			var code exec.CodeExitError
			if !errors.As(err, &code) || code.Code != 3 || out.String() != "hello" || stderr.String() != "err\n" {
				t.Errorf("%s: %v, %q, %q", name, err, out.String(), stderr.String())
			}
		}
	})
	t.Run("exec and logs over the oldest WebSockets", func(t *testing.T) {
		u := at("web", "exec").VersionedParams(&corev1.PodExecOptions{Command: []string{"echo", "from", "inside"}, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
		if got := channels(t, cfg, u, "channel.k8s.io"); !strings.Contains(got, "from inside\n") {
			t.Errorf("exec: %q", got)
		}
		u = n.api.Admin.CoreV1().RESTClient().Get().Namespace("default").Resource("pods").Name("web").SubResource("log").URL()
		if got := channels(t, cfg, u, "binary.k8s.io"); got != "started\n" {
			t.Errorf("logs: %q", got)
		}
	})
	t.Run("attach", func(t *testing.T) {
		u := at("talk", "attach").VersionedParams(&corev1.PodAttachOptions{Stdin: true, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
		for name, ex := range executors(t, cfg, u) {
			attach(t, name, ex, remotecommand.StreamOptions{}, "one\n", "you said one\n")
		}
	})
	t.Run("attach to a terminal", func(t *testing.T) {
		u := at("shell", "attach").VersionedParams(&corev1.PodAttachOptions{Stdin: true, Stdout: true, TTY: true}, scheme.ParameterCodec).URL()
		for name, ex := range executors(t, cfg, u) {
			attach(t, name, ex, remotecommand.StreamOptions{Tty: true}, "echo $((6*7))\r", "\n42\r\n")
		}
	})
	t.Run("port-forward", func(t *testing.T) {
		u := at("web", "portforward").URL()
		tr, up, err := spdy.RoundTripperFor(cfg)
		must(t, err)
		tunnel, err := portforward.NewSPDYOverWebsocketDialer(u, cfg)
		must(t, err)
		for name, dialer := range map[string]httpstream.Dialer{
			"SPDY": spdy.NewDialer(up, &http.Client{Transport: tr}, http.MethodPost, u), "WebSocket": tunnel,
		} {
			for range 2 { // a forwarder serves many connections over time
				if got := through(t, dialer); got != "hello\n" {
					t.Errorf("%s: %q", name, got)
				}
			}
		}
	})
	t.Run("nobody else may", func(t *testing.T) {
		eve := n.api.Client(n.api.User("eve"))
		_, err := eve.CoreV1().Pods("default").GetLogs("web", &corev1.PodLogOptions{}).DoRaw(t.Context())
		if !apierrors.IsForbidden(err) {
			t.Errorf("logs: %v", err)
		}
	})
}

// channels reads a WebSocket of that protocol to its end; of exec's, each
// message begins with the number of its channel.
func channels(t *testing.T, cfg *rest.Config, u *url.URL, protocol string) string {
	t.Helper()
	tlsCfg, err := rest.TLSConfigFor(cfg)
	must(t, err)
	u.Scheme = "wss"
	d := websocket.Dialer{TLSClientConfig: tlsCfg, Subprotocols: []string{protocol}, HandshakeTimeout: 30 * time.Second}
	c, resp, err := d.DialContext(t.Context(), u.String(), nil)
	must(t, err)
	_ = resp.Body.Close()
	defer c.Close()
	must(t, c.SetReadDeadline(time.Now().Add(30*time.Second)))
	var out []byte
	for {
		_, b, err := c.ReadMessage()
		if err != nil {
			return string(out)
		}
		if protocol == "channel.k8s.io" && len(b) > 0 {
			b = b[1:]
		}
		out = append(out, b...)
	}
}

// attach writes input to a process that runs and waits for its answer.
func attach(t *testing.T, name string, ex remotecommand.Executor, o remotecommand.StreamOptions, input, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	in, write := io.Pipe()
	seen := &watched{want: want, found: cancel}
	o.Stdin, o.Stdout = in, seen
	if !o.Tty {
		o.Stderr = io.Discard
	}
	go func() { _, _ = io.WriteString(write, input) }() // fails only with the test
	err := ex.StreamWithContext(ctx, o)
	if !strings.Contains(seen.got.String(), want) {
		t.Errorf("%s: %v, got %q, want %q", name, err, seen.got.String(), want)
	}
}

// watched collects output and says when what is wanted has come.
type watched struct {
	got   bytes.Buffer
	want  string
	found func()
}

func (w *watched) Write(b []byte) (int, error) {
	n, err := w.got.Write(b)
	if strings.Contains(w.got.String(), w.want) {
		w.found()
	}
	return n, err
}

// through asks for a page through a forwarded port.
func through(t *testing.T, dialer httpstream.Dialer) string {
	t.Helper()
	stop, opened := make(chan struct{}), make(chan struct{})
	fw, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{"0:8080"}, stop, opened, io.Discard, t.Output())
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- fw.ForwardPorts() }()
	select {
	case <-opened:
	case err := <-done:
		t.Error(err)
		return ""
	}
	defer func() { close(stop); must(t, <-done) }()
	ports, err := fw.GetPorts()
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", ports[0].Local), nil)
	must(t, err)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	must(t, err)
	b, err := io.ReadAll(resp.Body)
	must(t, errors.Join(err, resp.Body.Close()))
	return string(b)
}
