package outofprocess_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"

	"skein.dev/skein/api/component"
	"skein.dev/skein/network/nft"
	"skein.dev/skein/network/ns"
	"skein.dev/skein/network/nstest"
	"skein.dev/skein/proxy"
	"skein.dev/skein/tests/realapi"
)

// run runs a component until the test ends.
func run(t *testing.T, f informers.SharedInformerFactory, part func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	f.Start(ctx.Done())
	done := make(chan error, 1)
	go func() { done <- part(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("component ended: %v", err)
		}
		f.Shutdown()
	})
}

func informed(k component.Kit) component.Kit {
	k.Informers = informers.NewSharedInformerFactory(k.Client, 0)
	return k
}

// service makes a service and returns its address.
func service(t *testing.T, admin kubernetes.Interface, name string, edit func(*corev1.Service)) string {
	t.Helper()
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}
	if edit != nil {
		edit(s)
	}
	s, err := admin.CoreV1().Services("default").Create(t.Context(), s, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s.Spec.ClusterIP
}

// endpoints puts addresses behind a service.
func endpoints(t *testing.T, admin kubernetes.Interface, service string, port int32, at ...string) {
	t.Helper()
	name, tcp := "http", corev1.ProtocolTCP
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: service + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &tcp}},
	}
	for i, ip := range at {
		host := fmt.Sprintf("%s-%d", service, i)
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{ip}, Hostname: &host})
	}
	if _, err := admin.DiscoveryV1().EndpointSlices("default").Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// answerer serves a word on TCP in a namespace.
func answerer(t *testing.T, at *nstest.NS, addr, word string) {
	t.Helper()
	var l net.Listener
	at.Do(t, func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	})
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, word)
			c.Close()
		}
	}()
}

func read(at *nstest.NS, addr string) (string, error) {
	var c net.Conn
	err := ns.Do(at.Path, func() (err error) {
		c, err = net.DialTimeout("tcp", addr, time.Second)
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	return string(b), err
}

func TestTheProxyProgramsAKernelFromAnAPIApart(t *testing.T) {
	machine := nstest.New(t)
	pod := nstest.New(t)
	machine.Join(t, "pod", "10.9.1.1/24", pod, "eth0", "10.9.1.2/24")
	machine.Route(t, "default", "10.9.1.2")
	answerer(t, pod, "10.9.1.2:8080", "here")

	api := realapi.Serve(t, realapi.Config{})
	kit := informed(api.Kit("n1", "proxy", "system:kube-proxy"))
	table, err := nft.New(nft.Config{NetNS: machine.Path})
	if err != nil {
		t.Fatal(err)
	}
	p, err := proxy.New(proxy.Config{Kit: kit, Backend: table, Own: []netip.Addr{netip.MustParseAddr("10.96.0.10")}})
	if err != nil {
		t.Fatal(err)
	}
	run(t, kit.Informers, p.Run)

	at := net.JoinHostPort(service(t, api.Admin, "web", nil), "80")
	endpoints(t, api.Admin, "web", 8080, "10.9.1.2")
	realapi.Eventually(t, "the service leads to the pod", func() bool {
		got, err := read(machine, at)
		return err == nil && got == "here"
	})
	if err := api.Admin.CoreV1().Services("default").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	realapi.Eventually(t, "the service is gone", func() bool {
		_, err := read(machine, at)
		return err != nil
	})
	// Upstream's role of that name, which other proxies rely on, and no more.
	following := []string{"create /events", "patch /events", "update /events"}
	for _, r := range []string{"/services", "/endpoints", "discovery.k8s.io/endpointslices", "networking.k8s.io/servicecidrs"} {
		following = append(following, "list "+r, "watch "+r)
	}
	only(t, kit.Client, append(append(reading("/nodes"), following...), recording()...)...)
	if _, err := kit.Client.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a proxy that reads secrets: %v", err)
	}
	api.Refused() // the one above
}
