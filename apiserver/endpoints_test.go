package apiserver_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"skein.dev/skein/apiserver"
)

// apiEndpoints are the slices of default/kubernetes, as "name=address:port,...".
func apiEndpoints(t *testing.T, c kubernetes.Interface) (out []string) {
	t.Helper()
	l, err := c.DiscoveryV1().EndpointSlices("default").List(t.Context(), metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=kubernetes"})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range l.Items {
		var at []string
		for _, e := range s.Endpoints {
			at = append(at, fmt.Sprintf("%s:%d", e.Addresses[0], *s.Ports[0].Port))
		}
		out = append(out, s.Name+"="+strings.Join(at, ","))
	}
	slices.Sort(out)
	return out
}

func TestEveryPeerIsReachedAtItsOwnPort(t *testing.T) {
	var at atomic.Pointer[[]netip.AddrPort]
	var changed atomic.Pointer[chan struct{}]
	set := func(texts ...string) {
		var all []netip.AddrPort
		for _, s := range texts {
			all = append(all, netip.MustParseAddrPort(s))
		}
		at.Store(&all)
		next := make(chan struct{})
		if was := changed.Swap(&next); was != nil {
			close(*was)
		}
	}
	set("192.0.2.2:6443", "192.0.2.1:7443", "192.0.2.3:6443", "[2001:db8::1]:6443")
	f := start(t, func(c *apiserver.Config) {
		c.Endpoints = func() []netip.AddrPort { return slices.Clone(*at.Load()) }
		c.EndpointsChanged = func() <-chan struct{} { return *changed.Load() }
	})
	c := f.client(t, f.admin(t))
	await := func(want ...string) {
		t.Helper()
		for range 600 {
			if slices.Equal(apiEndpoints(t, c), want) {
				return
			}
			select {
			case <-t.Context().Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
		t.Fatalf("got %q, want %q", apiEndpoints(t, c), want)
	}
	await("kubernetes-7443=192.0.2.1:7443", "kubernetes-v6=2001:db8::1:6443", "kubernetes=192.0.2.2:6443,192.0.2.3:6443")
	set("192.0.2.1:7443")
	await("kubernetes=192.0.2.1:7443")
}
