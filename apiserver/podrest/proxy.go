package podrest

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	apiproxy "k8s.io/apiserver/pkg/util/proxy"
	netutils "k8s.io/utils/net"
)

// Services finds what services/proxy needs in the replica.
type Services interface {
	// Service returns a service, nil if there is none.
	Service(namespace, name string) *corev1.Service
	// EndpointSlices returns the slices of a service.
	EndpointSlices(namespace, service string) []*discoveryv1.EndpointSlice
	// Pod returns a pod, nil if there is none.
	Pod(namespace, name string) *corev1.Pod
}

// proxied serves any path of something that listens in the cluster. Links in
// its pages are rewritten to lead through the proxy again.
type proxied struct {
	options func() runtime.Object
	// locate finds where id is, which is "name", "name:port" or
	// "scheme:name:port".
	locate func(ctx context.Context, id string) (*url.URL, error)
}

var _ rest.Connecter = (*proxied)(nil)

// New implements rest.Storage.
func (p *proxied) New() runtime.Object { return p.options() }

// Destroy implements rest.Storage.
func (*proxied) Destroy() {}

// ConnectMethods implements rest.Connecter.
func (*proxied) ConnectMethods() []string { return (*nodeProxy)(nil).ConnectMethods() }

// NewConnectOptions implements rest.Connecter.
func (p *proxied) NewConnectOptions() (obj runtime.Object, path bool, name string) {
	return p.options(), true, "path"
}

// Connect implements rest.Connecter.
func (p *proxied) Connect(ctx context.Context, id string, options runtime.Object, r rest.Responder) (http.Handler, error) {
	u, err := p.locate(ctx, id)
	if err != nil {
		return nil, err
	}
	switch o := options.(type) {
	case *corev1.PodProxyOptions:
		u.Path = utilnet.JoinPreservingTrailingSlash(u.Path, o.Path)
	case *corev1.ServiceProxyOptions:
		u.Path = utilnet.JoinPreservingTrailingSlash(u.Path, o.Path)
	default:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("unknown options %T", options))
	}
	return through(u, r), nil
}

func through(u *url.URL, r rest.Responder) http.Handler {
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second, DisableKeepAlives: true,
		// Nothing says which certificate a pod should have; upstream checks none.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
	}
	return proxy.NewUpgradeAwareHandler(u, transport, true, false, proxy.NewErrorResponder(r))
}

// podProxy locates pods by the address that their node has reported.
func (p *Pods) podProxy(ctx context.Context, id string) (*url.URL, error) {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(id)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid pod request %q", id))
	}
	pod, err := p.get(ctx, name)
	if err != nil {
		return nil, err
	}
	for i := range pod.Spec.Containers {
		if ports := pod.Spec.Containers[i].Ports; port == "" && len(ports) > 0 {
			port = strconv.Itoa(int(ports[0].ContainerPort))
		}
	}
	address := pod.Status.PodIP
	if ip := netutils.ParseIPSloppy(address); ip == nil || !ip.IsGlobalUnicast() {
		return nil, apierrors.NewBadRequest("address not allowed")
	}
	u := &url.URL{Scheme: scheme, Host: net.JoinHostPort(address, port)}
	if port == "" {
		u.Host = address
		if netutils.IsIPv6String(address) {
			u.Host = "[" + address + "]"
		}
	}
	return u, nil
}

// ServiceProxy serves services/proxy.
func ServiceProxy(s Services) rest.Storage {
	return &proxied{
		options: func() runtime.Object { return &corev1.ServiceProxyOptions{} },
		locate:  func(ctx context.Context, id string) (*url.URL, error) { return locateService(ctx, s, id) },
	}
}

// locateService picks one of a service's ready pods. Other endpoints are not
// proxied to: users write them, and this server can reach more than they.
func locateService(ctx context.Context, s Services, id string) (*url.URL, error) {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(id)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid service request %q", id))
	}
	namespace := request.NamespaceValue(ctx)
	svc := s.Service(namespace, name)
	if number, err := strconv.ParseInt(port, 10, 32); err == nil {
		if svc == nil {
			return nil, apierrors.NewNotFound(corev1.Resource("services"), name)
		}
		if port, ok = portName(svc, int32(number)); !ok {
			return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", number, name))
		}
	}
	all := s.EndpointSlices(namespace, name)
	if len(all) == 0 {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", name))
	}
	family := corev1.IPv4Protocol
	if svc != nil && len(svc.Spec.IPFamilies) > 0 {
		family = svc.Spec.IPFamilies[0]
	}
	host, err := apiproxy.RandomEndpoint(name, all, port, family, func(e *discoveryv1.Endpoint) bool { return ofPod(s, namespace, e) })
	if err != nil {
		return nil, err
	}
	return &url.URL{Scheme: scheme, Host: host}, nil
}

func portName(svc *corev1.Service, number int32) (string, bool) {
	for _, p := range svc.Spec.Ports {
		if p.Port == number {
			return p.Name, true
		}
	}
	return "", false
}

// ofPod tells whether an endpoint is the pod that it says it is.
func ofPod(s Services, namespace string, e *discoveryv1.Endpoint) bool {
	ref := e.TargetRef
	if ref == nil || ref.Namespace != namespace || len(e.Addresses) == 0 {
		return false
	}
	pod := s.Pod(namespace, ref.Name)
	if pod == nil {
		return false
	}
	want := netutils.ParseIPSloppy(e.Addresses[0])
	for _, ip := range pod.Status.PodIPs {
		if want.Equal(netutils.ParseIPSloppy(ip.IP)) {
			return true
		}
	}
	return false
}
