package apiserver

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
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

const apiServiceName = "kubernetes"

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
