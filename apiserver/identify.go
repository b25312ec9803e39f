package apiserver

import (
	"context"
	"iter"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/websocket"
	"k8s.io/apiserver/pkg/authentication/token/cache"
	tokenunion "k8s.io/apiserver/pkg/authentication/token/union"

	"skein.dev/skein/apiserver/authn"
	"skein.dev/skein/apiserver/authz"
	"skein.dev/skein/apiserver/storage"
)

// Results of token checks are kept this long, as upstream does.
const (
	tokenGood = 10 * time.Second
	tokenBad  = 10 * time.Second
)

// authenticator tries the ways to know a user in order of their cost.
func (s *Server) authenticator() (authenticator.Request, error) {
	all := []authenticator.Request{authenticator.RequestFunc(authenticateInProcess)}
	if s.headers != nil {
		all = append(all, byRequestHeader(s.headers))
	}
	if s.cfg.ClientCAs != nil {
		all = append(all, authn.Certificates(s.cfg.ClientCAs))
	}
	tokens := []authenticator.Token{authenticator.WrapAudienceAgnosticToken([]string{s.cfg.Issuer}, authn.Bootstrap{Reader: reader{s}})}
	if key := s.cfg.ServiceAccountKey; key != nil {
		own, err := authn.NewKey(key)
		if err != nil {
			return nil, err
		}
		s.keys = &tokenKeys{server: s, own: own}
		s.tokens = authn.NewTokens(authn.TokensConfig{
			Keys: s.keys.current, CatchUp: reader{s}.CatchUp, Issuer: s.cfg.Issuer, Audiences: []string{s.cfg.Issuer}, Reader: reader{s},
		})
		tokens = append(tokens, s.tokens)
	}
	// Other issuers come after this cluster's own tokens, which cost nothing.
	var err error
	if s.outside, err = s.outsiders(); err != nil {
		return nil, err
	}
	tokens = append(tokens, s.outside)
	if s.cfg.TokenWebhook.File != "" {
		ask, err := s.askWebhook()
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, ask)
	}
	s.bearer = cache.New(tokenunion.New(tokens...), false, tokenGood, tokenBad)
	all = append(all, bearertoken.New(s.bearer), websocket.NewProtocolAuthenticator(s.bearer))
	// Who shows a credential that is not good is refused, not made anonymous.
	known := group.NewAuthenticatedGroupAdder(union.New(all...))
	return union.NewFailOnError(known, s.outside), nil
}

// authorizer prepares who decides what users may do.
func (s *Server) authorizer() error {
	s.rbac = authz.NewRBAC(s.policy)
	s.nodes = &authz.Node{Objects: reader{s}}
	d, err := s.deciders()
	if err != nil {
		return err
	}
	s.authz, s.rules = d.Authorizer, d.RuleResolver
	return nil
}

// each yields the replica's objects of a kind, shared and read-only.
func each[T runtime.Object](s *Server, resource, namespace string) iter.Seq[T] {
	return func(yield func(T) bool) {
		r := s.resources[resource]
		if r == nil {
			return
		}
		for obj := range r.Keep.Each(s.base, s.cfg.Store.Local(), namespace) {
			if t, ok := obj.(T); ok && !yield(t) {
				return
			}
		}
	}
}

func collect[T runtime.Object](s *Server, resource string) (all []T) {
	for t := range each[T](s, resource, "") {
		all = append(all, t)
	}
	return all
}

func (s *Server) policy() authz.Policy {
	return authz.Policy{
		Roles:               collect[*rbacv1.Role](s, rbacv1.GroupName+"/roles"),
		ClusterRoles:        collect[*rbacv1.ClusterRole](s, rbacv1.GroupName+"/clusterroles"),
		RoleBindings:        collect[*rbacv1.RoleBinding](s, rbacv1.GroupName+"/rolebindings"),
		ClusterRoleBindings: collect[*rbacv1.ClusterRoleBinding](s, rbacv1.GroupName+"/clusterrolebindings"),
	}
}

// reader finds objects in the replica. It implements authn.Reader.
type reader struct{ s *Server }

func find[T runtime.Object](s *Server, resource, namespace, name string) (none T) {
	if name == "" {
		return none
	}
	obj, err := s.peek(resource, namespace, name)
	if err != nil {
		s.cfg.Log.ErrorContext(s.base, "stored object is unreadable", "resource", resource, "name", name, "error", err)
		return none
	}
	t, ok := obj.(T)
	if !ok {
		return none
	}
	return t
}

// ServiceAccount implements authn.Reader.
func (r reader) ServiceAccount(namespace, name string) *corev1.ServiceAccount {
	return find[*corev1.ServiceAccount](r.s, "/serviceaccounts", namespace, name)
}

// Pod implements authn.Reader.
func (r reader) Pod(namespace, name string) *corev1.Pod {
	return find[*corev1.Pod](r.s, "/pods", namespace, name)
}

// Secret implements authn.Reader.
func (r reader) Secret(namespace, name string) *corev1.Secret {
	return find[*corev1.Secret](r.s, "/secrets", namespace, name)
}

// Node implements authn.Reader.
func (r reader) Node(name string) *corev1.Node {
	return find[*corev1.Node](r.s, "/nodes", "", name)
}

// Get implements authz.Objects.
func (r reader) Get(resource, namespace, name string) runtime.Object {
	return find[runtime.Object](r.s, resource, namespace, name)
}

// Each implements admit.Reader and authz.Objects.
func (r reader) Each(resource, namespace string) iter.Seq[runtime.Object] {
	kept := r.s.resources[resource]
	if kept == nil {
		return func(func(runtime.Object) bool) {}
	}
	return kept.Keep.Each(r.s.base, r.s.cfg.Store.Local(), namespace)
}

// CatchUp implements admit.Reader: after a linearizable read the replica
// shows all that was acknowledged before.
func (r reader) CatchUp(ctx context.Context) error {
	_, err := r.s.cfg.Store.Current(ctx)
	return storage.StoreError(err)
}
