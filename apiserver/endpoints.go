package apiserver

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	// apiServiceName6 is the name of the API's endpoints of IPv6.
	apiServiceName6 = apiServiceName + "-v6"
	// endpointsEvery is how often the endpoints are looked at when nobody
	// tells that they changed.
	endpointsEvery = time.Minute
)

// keepEndpoints keeps the endpoints of the API at the peers that live.
func (s *Server) keepEndpoints(ctx context.Context) error {
	if s.cfg.Endpoints == nil {
		return nil
	}
	client, err := kubernetes.NewForConfig(s.ClientConfig(selfUser))
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		var changed <-chan struct{}
		if s.cfg.EndpointsChanged != nil {
			changed = s.cfg.EndpointsChanged() // before reading, so that nothing is missed
		}
		if s.untilDone(ctx, "write endpoints", func(ctx context.Context) error { return s.writeEndpoints(ctx, client) }) != nil {
			return nil //nolint:nilerr // ctx has ended
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-time.After(endpointsEvery):
		}
	}
	return nil
}

func (s *Server) writeEndpoints(ctx context.Context, client kubernetes.Interface) error {
	at := s.cfg.Endpoints()
	if len(at) == 0 {
		return nil // never leave pods without the API
	}
	slices.SortFunc(at, func(a, b netip.AddrPort) int { return a.Compare(b) })
	at = slices.Compact(at)
	if err := s.writeSlices(ctx, client, at); err != nil {
		return err
	}
	if s.resources["/endpoints"] == nil {
		return nil
	}
	want := &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{
			Name: apiServiceName, Namespace: metav1.NamespaceDefault,
			Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"},
		},
		Subsets: subsets(at),
	}
	have := find[*corev1.Endpoints](s, "/endpoints", want.Namespace, want.Name)
	endpoints := client.CoreV1().Endpoints(want.Namespace)
	if have == nil {
		_, err := endpoints.Create(ctx, want, metav1.CreateOptions{})
		return existing(err)
	}
	if equality.Semantic.DeepEqual(have.Subsets, want.Subsets) {
		return nil
	}
	want.ResourceVersion = have.ResourceVersion
	_, err := endpoints.Update(ctx, want, metav1.UpdateOptions{})
	return err
}

func subsets(at []netip.AddrPort) (out []corev1.EndpointSubset) {
	byPort := map[uint16][]corev1.EndpointAddress{}
	var ports []uint16
	for _, a := range at {
		if byPort[a.Port()] == nil {
			ports = append(ports, a.Port())
		}
		byPort[a.Port()] = append(byPort[a.Port()], corev1.EndpointAddress{IP: a.Addr().String()})
	}
	slices.Sort(ports)
	for _, p := range ports {
		out = append(out, corev1.EndpointSubset{
			Addresses: byPort[p],
			Ports:     []corev1.EndpointPort{{Name: "https", Port: int32(p), Protocol: corev1.ProtocolTCP}},
		})
	}
	return out
}

// writeSlices keeps one slice a family and port.
func (s *Server) writeSlices(ctx context.Context, client kubernetes.Interface, at []netip.AddrPort) error {
	const resource = discoveryv1.GroupName + "/endpointslices"
	if s.resources[resource] == nil {
		return nil
	}
	wants := apiSlices(at)
	slicesClient := client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault)
	for name, w := range wants {
		have := find[*discoveryv1.EndpointSlice](s, resource, w.Namespace, name)
		if have == nil {
			_, err := slicesClient.Create(ctx, w, metav1.CreateOptions{})
			if err := existing(err); err != nil {
				return err
			}
			continue
		}
		if sameEndpoints(have, w) {
			continue
		}
		w.ResourceVersion = have.ResourceVersion
		if _, err := slicesClient.Update(ctx, w, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	for have := range each[*discoveryv1.EndpointSlice](s, resource, metav1.NamespaceDefault) {
		if wants[have.Name] != nil || !isAPISlice(have) {
			continue
		}
		if err := slicesClient.Delete(ctx, have.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// apiSlices are the slices of the sorted addresses at, by name. The least port
// of a family has the name that clusters of one port know.
func apiSlices(at []netip.AddrPort) map[string]*discoveryv1.EndpointSlice {
	least := map[bool]uint16{}
	for _, a := range at {
		if is6 := a.Addr().Is6(); least[is6] == 0 || a.Port() < least[is6] {
			least[is6] = a.Port()
		}
	}
	wants := map[string]*discoveryv1.EndpointSlice{}
	for _, a := range at {
		family, name := discoveryv1.AddressTypeIPv4, apiServiceName
		if a.Addr().Is6() {
			family, name = discoveryv1.AddressTypeIPv6, apiServiceName6
		}
		if a.Port() != least[a.Addr().Is6()] {
			name += "-" + strconv.Itoa(int(a.Port()))
		}
		w := wants[name]
		if w == nil {
			w = &discoveryv1.EndpointSlice{
				ObjectMeta: metav1.ObjectMeta{
					Name: name, Namespace: metav1.NamespaceDefault,
					Labels: map[string]string{discoveryv1.LabelServiceName: apiServiceName},
				},
				AddressType: family, Ports: []discoveryv1.EndpointPort{apiPort(a.Port())},
			}
			wants[name] = w
		}
		ready := true
		w.Endpoints = append(w.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{a.Addr().String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		})
	}
	return wants
}

// isAPISlice reports whether a slice is one that apiSlices has named.
func isAPISlice(s *discoveryv1.EndpointSlice) bool {
	if s.Labels[discoveryv1.LabelServiceName] != apiServiceName {
		return false
	}
	name, port, more := strings.Cut(strings.Replace(s.Name, apiServiceName6, apiServiceName, 1), "-")
	_, err := strconv.ParseUint(port, 10, 16)
	return name == apiServiceName && (!more || err == nil)
}

func apiPort(port uint16) discoveryv1.EndpointPort {
	name, protocol, number := "https", corev1.ProtocolTCP, int32(port)
	return discoveryv1.EndpointPort{Name: &name, Protocol: &protocol, Port: &number}
}

func sameEndpoints(a, b *discoveryv1.EndpointSlice) bool {
	flat := func(s *discoveryv1.EndpointSlice) string {
		var all []string
		for _, e := range s.Endpoints {
			all = append(all, strings.Join(e.Addresses, "+"))
		}
		return strings.Join(all, ",")
	}
	return flat(a) == flat(b) && equality.Semantic.DeepEqual(a.Ports, b.Ports)
}
