package apiserver

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"skein.dev/skein/api/store"
	"skein.dev/skein/apiserver/alloc"
	"skein.dev/skein/apiserver/bootstrap"
	"skein.dev/skein/apiserver/registry"
)

const (
	retryMin = 200 * time.Millisecond
	retryMax = 5 * time.Second
	// endpointsEvery is how often the endpoints are looked at when nobody
	// tells that they changed.
	endpointsEvery = time.Minute
)

// maintain keeps what the server itself owes the cluster, until ctx ends.
func (s *Server) maintain(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.watchPolicy(ctx) })
	g.Go(func() error { return s.followFiles(ctx) })
	g.Go(func() error {
		if err := s.untilDone(ctx, "create the first objects", s.begin); err != nil {
			return nil //nolint:nilerr // ctx ended
		}
		g.Go(func() error { return s.keepFlows(ctx) })
		return s.keepEndpoints(ctx)
	})
	return g.Wait()
}

// begin makes sure of the first objects and has the authorizer see them. An
// old cluster's replica has them already: its components need not wait for a
// quorum.
func (s *Server) begin(ctx context.Context) error {
	s.greet(s.complete)
	if err := s.createFirst(ctx); err != nil {
		// Something that was deleted, or is new with this version, cannot be
		// made now; the cluster can do without it for as long.
		s.greet(func() bool { return s.exists("/services", metav1.NamespaceDefault, apiServiceName) })
		return err
	}
	s.greet(func() bool { return true })
	s.begun.Store(true)
	return nil
}

// greet lets components in, once the replica has what they are authorized by.
func (s *Server) greet(enough func() bool) {
	if enough() {
		s.rbac.Refresh()
		s.once.Do(func() { close(s.policed) })
	}
}

// Ready returns when the authorizer knows what the components of a cluster
// may do; before that in-process clients are forbidden what they need. On a
// replica that has been of a cluster before, that is at once and without a
// quorum. An error is ctx's.
func (s *Server) Ready(ctx context.Context) error {
	select {
	case <-s.policed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// untilDone repeats f with growing pauses until it succeeds or ctx ends.
func (s *Server) untilDone(ctx context.Context, what string, f func(context.Context) error) error {
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.cfg.Log.DebugContext(ctx, "own objects are not there yet", "action", what, "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// watchPolicy keeps the authorizer's index at the replica's roles.
func (s *Server) watchPolicy(ctx context.Context) error {
	prefix := registry.Root + "/" + rbacv1.GroupName + "/"
	for ctx.Err() == nil {
		rev := s.cfg.Store.Local().Revision()
		w, err := s.cfg.Store.Watch(prefix, false, rev)
		if err == nil {
			s.rbac.Refresh()
			err = s.followPolicy(ctx, w)
		}
		if errors.Is(err, store.ErrCompacted) || ctx.Err() != nil {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryMin):
		}
	}
	return nil
}

func (s *Server) followPolicy(ctx context.Context, w store.Watch) error {
	defer w.Close()
	for {
		events, _, err := w.Next(ctx, true)
		if err != nil {
			return err
		}
		if len(events) > 0 {
			s.rbac.Refresh()
		}
	}
}

// createFirst creates what a new cluster begins with. On an old one it reads
// the replica and writes nothing.
func (s *Server) createFirst(ctx context.Context) error {
	if _, err := s.cfg.Store.Current(ctx); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(s.ClientConfig(selfUser))
	if err != nil {
		return err
	}
	for _, ns := range bootstrap.Namespaces() {
		if !s.exists("/namespaces", "", ns.Name) {
			_, err := client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
			if err := existing(err); err != nil {
				return err
			}
		}
	}
	if err := s.reconcilePolicy(ctx, client); err != nil {
		return err
	}
	if err := s.publishAuth(ctx, client); err != nil {
		return err
	}
	if err := s.createDefaults(ctx, client); err != nil {
		return err
	}
	return s.createService(ctx, client)
}

// existing forgives that another peer was faster, and kinds that are not served.
func existing(err error) error {
	if apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func (s *Server) exists(resource, namespace, name string) bool {
	if s.resources[resource] == nil {
		return true
	}
	obj, err := s.peek(resource, namespace, name)
	return err == nil && obj != nil
}

const (
	apiServiceName = "kubernetes"
	// apiServiceName6 is the name of its endpoints of IPv6.
	apiServiceName6 = apiServiceName + "-v6"
)

// createService creates the Service by which pods reach the API, at the first
// address of each range.
func (s *Server) createService(ctx context.Context, client kubernetes.Interface) error {
	if s.exists("/services", metav1.NamespaceDefault, apiServiceName) {
		return nil
	}
	var ips []string
	var families []corev1.IPFamily
	for _, r := range s.cfg.ServiceCIDRs {
		ips = append(ips, alloc.First(r).String())
		families = append(families, alloc.Family(r))
	}
	policy := corev1.IPFamilyPolicySingleStack
	if len(ips) > 1 {
		policy = corev1.IPFamilyPolicyRequireDualStack
	}
	_, err := client.CoreV1().Services(metav1.NamespaceDefault).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name: apiServiceName, Namespace: metav1.NamespaceDefault,
			Labels: map[string]string{"provider": "kubernetes", "component": "apiserver"},
		},
		Spec: corev1.ServiceSpec{
			ClusterIP: ips[0], ClusterIPs: ips, IPFamilies: families, IPFamilyPolicy: &policy,
			SessionAffinity: corev1.ServiceAffinityNone, Type: corev1.ServiceTypeClusterIP,
			Ports: []corev1.ServicePort{{Name: "https", Port: 443, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(6443)}},
		},
	}, metav1.CreateOptions{})
	return existing(err)
}

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
