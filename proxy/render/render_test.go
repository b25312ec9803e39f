package render_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/api/member"
	"skein.dev/skein/network/lb"
	"skein.dev/skein/proxy/render"
)

//go:fix inline

func base() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"},
		Spec: corev1.ServiceSpec{
			ClusterIP: "10.96.0.7", ClusterIPs: []string{"10.96.0.7"},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports:      []corev1.ServicePort{{Name: "http", Port: 80}},
		},
	}
}

// ep is an endpoint "address node state"; the state is r (ready), n (not
// ready), t (terminating but serving) or d (terminating, not serving).
func ep(s string, zones ...string) discoveryv1.Endpoint {
	f := strings.Fields(s)
	e := discoveryv1.Endpoint{Addresses: []string{f[0]}, NodeName: &f[1]}
	e.Conditions.Ready = new(f[2] == "r")
	e.Conditions.Serving = new(f[2] == "r" || f[2] == "t")
	e.Conditions.Terminating = new(f[2] == "t" || f[2] == "d")
	for _, z := range zones {
		if e.Hints == nil {
			e.Hints = &discoveryv1.EndpointHints{}
		}
		e.Hints.ForZones = append(e.Hints.ForZones, discoveryv1.ForZone{Name: z})
	}
	return e
}

func slice(eps ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	typ := discoveryv1.AddressTypeIPv4
	if len(eps) > 0 && strings.Contains(eps[0].Addresses[0], ":") {
		typ = discoveryv1.AddressTypeIPv6
	}
	return &discoveryv1.EndpointSlice{AddressType: typ, Endpoints: eps, Ports: []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080))}}}
}

// show writes services as lines: the front, the backends, what is special.
func show(in []lb.Service) string {
	var out []string
	for _, s := range in {
		l := []string{s.Front.String(), "->"}
		for _, b := range s.Backends {
			l = append(l, b.Addr().String())
		}
		if s.Affinity > 0 {
			l = append(l, "affinity="+s.Affinity.String())
		}
		if s.Drop {
			l = append(l, "drop")
		}
		if s.Masquerade {
			l = append(l, "masquerade")
		}
		out = append(out, strings.Join(l, " "))
	}
	return strings.Join(out, "\n")
}

func TestService(t *testing.T) {
	dead := func(names ...member.Name) map[member.Name]bool {
		m := map[member.Name]bool{}
		for _, n := range names {
			m[n] = true
		}
		return m
	}
	for _, c := range []struct {
		rule   string
		change func(*corev1.Service)
		eps    []*discoveryv1.EndpointSlice
		at     render.Place
		want   string
	}{
		{
			rule: "ready endpoints, each once, of all slices",
			eps:  []*discoveryv1.EndpointSlice{slice(ep("10.1.0.2 b r"), ep("10.1.0.1 a r"), ep("10.1.0.3 c n")), slice(ep("10.1.0.1 a r"))},
			want: "TCP 10.96.0.7:80 -> 10.1.0.1 10.1.0.2",
		},
		{rule: "a service without endpoints is there", want: "TCP 10.96.0.7:80 ->"},
		{
			rule: "terminating ones serve when none is ready",
			eps:  []*discoveryv1.EndpointSlice{slice(ep("10.1.0.1 a t"), ep("10.1.0.2 a d"), ep("10.1.0.3 a n"))},
			want: "TCP 10.96.0.7:80 -> 10.1.0.1",
		},
		{
			rule: "a dead peer's endpoints go",
			eps:  []*discoveryv1.EndpointSlice{slice(ep("10.1.0.1 a r"), ep("10.1.0.2 b r"))},
			at:   render.Place{Peer: "c", Dead: dead("b")},
			want: "TCP 10.96.0.7:80 -> 10.1.0.1",
		},
		{
			rule: "but not the last ones",
			eps:  []*discoveryv1.EndpointSlice{slice(ep("10.1.0.1 a r"), ep("10.1.0.2 b r"))},
			at:   render.Place{Peer: "c", Dead: dead("a", "b")},
			want: "TCP 10.96.0.7:80 -> 10.1.0.1 10.1.0.2",
		},
		{
			rule: "one that terminates on a living peer is better than a ready one on a dead peer",
			eps:  []*discoveryv1.EndpointSlice{slice(ep("10.1.0.1 a t"), ep("10.1.0.2 b r"))},
			at:   render.Place{Peer: "c", Dead: dead("b")},
			want: "TCP 10.96.0.7:80 -> 10.1.0.1",
		},
		{
			rule:   "internal traffic policy Local",
			change: func(s *corev1.Service) { s.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal) },
			eps:    []*discoveryv1.EndpointSlice{slice(ep("10.1.0.1 a r"), ep("10.1.0.2 b r"))},
			at:     render.Place{Peer: "b"},
			want:   "TCP 10.96.0.7:80 -> 10.1.0.2",
		},
		{
			rule:   "internal traffic policy Local without a local endpoint drops",
			change: func(s *corev1.Service) { s.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal) },
			eps:    []*discoveryv1.EndpointSlice{slice(ep("10.1.0.1 a r"))},
			at:     render.Place{Peer: "b"},
			want:   "TCP 10.96.0.7:80 -> drop",
		},
		{
			rule:   "client affinity",
			change: func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP },
			want:   "TCP 10.96.0.7:80 -> affinity=3h0m0s",
		},
		{
			rule: "the zone's endpoints, when all have hints",
			eps:  []*discoveryv1.EndpointSlice{slice(ep("10.1.0.1 a r", "z1"), ep("10.1.0.2 b r", "z2"))},
			at:   render.Place{Peer: "c", Zone: "z2"},
			want: "TCP 10.96.0.7:80 -> 10.1.0.2",
		},
		{
			rule: "all endpoints, when one lacks hints",
			eps:  []*discoveryv1.EndpointSlice{slice(ep("10.1.0.1 a r", "z1"), ep("10.1.0.2 b r"))},
			at:   render.Place{Peer: "c", Zone: "z1"},
			want: "TCP 10.96.0.7:80 -> 10.1.0.1 10.1.0.2",
		},
		{
			rule: "each family by itself",
			change: func(s *corev1.Service) {
				s.Spec.ClusterIPs = []string{"10.96.0.7", "fd96::7"}
			},
			eps:  []*discoveryv1.EndpointSlice{slice(ep("10.1.0.1 a r")), slice(ep("fd00::1 a r"))},
			want: "TCP 10.96.0.7:80 -> 10.1.0.1\nTCP [fd96::7]:80 -> fd00::1",
		},
		{
			rule: "only endpoints of the port's name and protocol",
			change: func(s *corev1.Service) {
				s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "http", Protocol: corev1.ProtocolUDP, Port: 80}, corev1.ServicePort{Name: "other", Port: 81})
			},
			eps:  []*discoveryv1.EndpointSlice{slice(ep("10.1.0.1 a r"))},
			want: "TCP 10.96.0.7:80 -> 10.1.0.1\nUDP 10.96.0.7:80 ->\nTCP 10.96.0.7:81 ->",
		},
		{
			rule: "node port and external address, with the client hidden",
			change: func(s *corev1.Service) {
				s.Spec.Type, s.Spec.Ports[0].NodePort, s.Spec.ExternalIPs = corev1.ServiceTypeNodePort, 30080, []string{"192.0.2.1"}
			},
			eps:  []*discoveryv1.EndpointSlice{slice(ep("10.1.0.1 a r"))},
			want: "TCP 0.0.0.0:30080 -> 10.1.0.1 masquerade\nTCP 10.96.0.7:80 -> 10.1.0.1\nTCP 192.0.2.1:80 -> 10.1.0.1 masquerade",
		},
		{
			rule: "external traffic policy Local keeps the client",
			change: func(s *corev1.Service) {
				s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30080
				s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			},
			eps:  []*discoveryv1.EndpointSlice{slice(ep("10.1.0.1 a r"))},
			at:   render.Place{Peer: "b"},
			want: "TCP 0.0.0.0:30080 -> drop\nTCP 10.96.0.7:80 -> 10.1.0.1",
		},
		{rule: "headless", change: func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "None", []string{"None"} }},
		{rule: "ExternalName", change: func(s *corev1.Service) { s.Spec.Type, s.Spec.ClusterIP = corev1.ServiceTypeExternalName, "" }},
		{rule: "another proxy's", change: func(s *corev1.Service) {
			s.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "x"}
		}},
		{rule: "an address the peer answers itself", at: render.Place{Own: []netip.Addr{netip.MustParseAddr("10.96.0.7")}}},
		{
			rule: "addresses that are none are left out",
			eps:  []*discoveryv1.EndpointSlice{slice(ep("what a r"), ep("10.1.0.1 a r")), {AddressType: discoveryv1.AddressTypeFQDN, Endpoints: []discoveryv1.Endpoint{ep("x.example a r")}}},
			want: "TCP 10.96.0.7:80 -> 10.1.0.1",
		},
	} {
		t.Run(c.rule, func(t *testing.T) {
			svc := base()
			if c.change != nil {
				c.change(svc)
			}
			before := svc.DeepCopy()
			got := render.Service(svc, c.eps, c.at)
			if diff := cmp.Diff(c.want, show(got)); diff != "" {
				t.Error(diff)
			}
			for _, s := range got {
				if err := s.Validate(); err != nil {
					t.Error(err)
				}
			}
			if diff := cmp.Diff(before, svc); diff != "" {
				t.Errorf("the service was written to: %s", diff)
			}
		})
	}
}

func TestNameSaysWhichPort(t *testing.T) {
	got := render.Service(base(), nil, render.Place{})
	if s := fmt.Sprint(got[0].Name); s != "ns/web:http" {
		t.Errorf("got %s", s)
	}
}
