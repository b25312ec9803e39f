package podrest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/registry/rest"
	apiproxy "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// kind is one of the streams of a pod.
type kind string

const (
	exec    kind = "exec"
	attach  kind = "attach"
	forward kind = "portForward"
)

const defaultPort = 10250

// stream passes a request on to the kubelet of the pod's node.
type stream struct {
	*Pods

	kind kind
}

var _ rest.Connecter = (*stream)(nil)

// New implements rest.Storage.
func (s *stream) New() runtime.Object {
	obj, _, _ := s.NewConnectOptions()
	return obj
}

// Destroy implements rest.Storage.
func (*stream) Destroy() {}

// ConnectMethods implements rest.Connecter.
func (*stream) ConnectMethods() []string { return []string{http.MethodGet, http.MethodPost} }

// NewConnectOptions implements rest.Connecter.
func (s *stream) NewConnectOptions() (obj runtime.Object, path bool, name string) {
	switch s.kind {
	case exec:
		return &corev1.PodExecOptions{}, false, ""
	case attach:
		return &corev1.PodAttachOptions{}, false, ""
	case forward:
	}
	return &corev1.PodPortForwardOptions{}, false, ""
}

// Connect implements rest.Connecter.
func (s *stream) Connect(ctx context.Context, name string, options runtime.Object, r rest.Responder) (http.Handler, error) {
	pod, err := s.get(ctx, name)
	if err != nil {
		return nil, err
	}
	u, err := s.address(pod.Spec.NodeName, pod.Name)
	if err != nil {
		return nil, err
	}
	container, query, err := s.query(options)
	if err != nil {
		return nil, err
	}
	path := []string{"", string(s.kind), pod.Namespace, pod.Name}
	if s.kind != forward {
		if container, err = choose(pod, container); err != nil {
			return nil, err
		}
		path = append(path, container)
	}
	u.Path, u.RawQuery = strings.Join(path, "/"), query.Encode()
	h := s.handler(u, true, r)
	if s.kind == forward {
		return apiproxy.NewTranslatingHandler(h, apiproxy.NewTunnelingHandler(h), wsstream.IsWebSocketRequestWithTunnelingProtocol), nil
	}
	translate := apiproxy.NewStreamTranslatorHandler(u, s.transport(), 0, streams(options))
	return apiproxy.NewTranslatingHandler(h, translate, wsstream.IsWebSocketRequestWithStreamCloseProtocol), nil
}

// streams tells the translator which streams there are: kubelets speak SPDY,
// clients WebSocket.
func streams(options runtime.Object) apiproxy.Options {
	switch o := options.(type) {
	case *corev1.PodExecOptions:
		return apiproxy.Options{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.TTY}
	case *corev1.PodAttachOptions:
		return apiproxy.Options{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.TTY}
	}
	return apiproxy.Options{}
}

// handler proxies to u; streams must upgrade their connection.
func (p *Pods) handler(u *url.URL, upgrade bool, r rest.Responder) http.Handler {
	h := proxy.NewUpgradeAwareHandler(u, p.transport(), false, upgrade, proxy.NewErrorResponder(r))
	h.UseLocationHost = true
	h.MaxBytesPerSec = 0
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		// The kubelet answers to this server's identity, not to the user's.
		req = req.Clone(req.Context())
		req.Header.Del("Authorization")
		h.ServeHTTP(w, req)
	})
}

func (p *Pods) transport() http.RoundTripper {
	return &http.Transport{
		TLSClientConfig:     p.TLS.Clone(),
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second, DisableCompression: true, DisableKeepAlives: true,
	}
}

// address is where the kubelet of a node is reached.
func (p *Pods) address(node, what string) (*url.URL, error) {
	if p.TLS == nil {
		return nil, apierrors.NewServiceUnavailable("this peer has no way to kubelets")
	}
	if node == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", what))
	}
	n := p.Node(node)
	if n == nil {
		return nil, apierrors.NewNotFound(corev1.Resource("nodes"), node)
	}
	port := n.Status.DaemonEndpoints.KubeletEndpoint.Port
	if p.Port != 0 {
		port = p.Port
	}
	if port == 0 {
		port = defaultPort
	}
	for _, want := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP, corev1.NodeHostName} {
		for _, a := range n.Status.Addresses {
			if a.Type == want {
				return &url.URL{Scheme: "https", Host: net.JoinHostPort(a.Address, strconv.Itoa(int(port)))}, nil
			}
		}
	}
	return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("node %s has no address yet", node))
}

// query returns the options as the kubelet reads them.
func (s *stream) query(options runtime.Object) (container string, q url.Values, err error) {
	q = url.Values{}
	flag := func(name string, on bool) {
		if on {
			q.Set(name, "1")
		}
	}
	switch o := options.(type) {
	case *corev1.PodExecOptions:
		for _, c := range o.Command {
			q.Add("command", c)
		}
		flag("input", o.Stdin)
		flag("output", o.Stdout)
		flag("error", o.Stderr)
		flag("tty", o.TTY)
		return o.Container, q, nil
	case *corev1.PodAttachOptions:
		flag("input", o.Stdin)
		flag("output", o.Stdout)
		flag("error", o.Stderr)
		flag("tty", o.TTY)
		return o.Container, q, nil
	case *corev1.PodPortForwardOptions:
		for _, p := range o.Ports {
			q.Add("port", strconv.Itoa(int(p)))
		}
		return "", q, nil
	}
	return "", nil, apierrors.NewBadRequest(fmt.Sprintf("unknown options %T", options))
}

// choose returns the container that is meant: the named one, or the only one.
func choose(pod *corev1.Pod, name string) (string, error) {
	var all []string
	for _, c := range pod.Spec.Containers {
		all = append(all, c.Name)
	}
	if name == "" {
		if len(all) == 1 {
			return all[0], nil
		}
		return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s, choose one of: %v", pod.Name, all))
	}
	for _, c := range pod.Spec.InitContainers {
		all = append(all, c.Name)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		all = append(all, c.Name)
	}
	if slices.Contains(all, name) {
		return name, nil
	}
	return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name))
}

// NodeProxy serves nodes/proxy: any path of a kubelet.
func (p *Pods) NodeProxy() rest.Storage { return &nodeProxy{p} }

type nodeProxy struct{ *Pods }

var _ rest.Connecter = (*nodeProxy)(nil)

// New implements rest.Storage.
func (*nodeProxy) New() runtime.Object { return &corev1.NodeProxyOptions{} }

// Destroy implements rest.Storage.
func (*nodeProxy) Destroy() {}

// ConnectMethods implements rest.Connecter.
func (*nodeProxy) ConnectMethods() []string {
	return []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodHead, http.MethodPatch, http.MethodOptions}
}

// NewConnectOptions implements rest.Connecter.
func (*nodeProxy) NewConnectOptions() (obj runtime.Object, path bool, name string) {
	return &corev1.NodeProxyOptions{}, true, "path"
}

// Connect implements rest.Connecter.
func (n *nodeProxy) Connect(_ context.Context, name string, options runtime.Object, r rest.Responder) (http.Handler, error) {
	o, ok := options.(*corev1.NodeProxyOptions)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("unknown options %T", options))
	}
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(name)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid node request %q", name))
	}
	u, err := n.address(name, name)
	if err != nil {
		return nil, err
	}
	if port != "" && port != u.Port() { // something else that listens on the node
		u.Scheme, u.Host = scheme, net.JoinHostPort(u.Hostname(), port)
		u.Path = utilnet.JoinPreservingTrailingSlash(u.Path, o.Path)
		return through(u, r), nil
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		u.Path, u.RawQuery = "/"+strings.TrimPrefix(o.Path, "/"), req.URL.RawQuery
		n.handler(u, false, r).ServeHTTP(w, req)
	}), nil
}
