package apiserver

import (
	"context"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	genericapifilters "k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/filters/impersonation"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	genericfilters "k8s.io/apiserver/pkg/server/filters"

	"skein.dev/skein/api/role"
)

func longRunning() genericapirequest.LongRunningRequestCheck {
	return genericfilters.BasicLongRunningRequestCheck(
		sets.NewString("watch", "proxy"),
		sets.NewString("attach", "exec", "proxy", "log", "portforward"),
	)
}

// chain builds the filters from what is switched on: the default one's
// timeouts, tracing, latency tracking and audit cost a third of a create.
func (s *Server) chain(api http.Handler, c *genericapiserver.Config) http.Handler {
	h := withFence(s.short.wrap(s.described(s.plainCustom(api, c.Serializer))))
	h = genericapifilters.WithAuthorization(h, c.Authorization.Authorizer, c.Serializer)
	s.fair = s.newFairness(h, c.LongRunningFunc, c.RequestTimeout)
	h = s.fair
	h = impersonation.WithConstrainedImpersonation(h, c.Authorization.Authorizer, c.Serializer)
	unauthorized := genericapifilters.Unauthorized(c.Serializer)
	if s.audit.on() {
		h = genericapifilters.WithAudit(h, s.audit.backend, s.audit.policy, c.LongRunningFunc)
		unauthorized = genericapifilters.WithFailedAuthenticationAudit(unauthorized, s.audit.backend, s.audit.policy)
	}
	h = genericapifilters.WithAuthentication(h, c.Authentication.Authenticator,
		unauthorized, c.Authentication.APIAudiences, c.Authentication.RequestHeaderConfig)
	h = genericapifilters.WithWarningRecorder(h)
	h = genericapifilters.WithRequestDeadline(h, s.audit.backend, s.audit.policy, c.LongRunningFunc, c.Serializer, c.RequestTimeout)
	h = s.endStreams(h, c.LongRunningFunc)
	if s.cfg.GoawayChance > 0 {
		h = genericfilters.WithProbabilisticGoaway(h, s.cfg.GoawayChance)
	}
	h = genericapifilters.WithCacheControl(h)
	h = genericfilters.WithHSTS(h, s.cfg.HSTS)
	h = genericapifilters.WithRequestInfo(h, c.RequestInfoResolver)
	h = genericapifilters.WithRequestReceivedTimestamp(h)
	return s.audit.init(genericfilters.WithPanicRecovery(h, c.RequestInfoResolver))
}

// endStreams ends watches and streams when the server stops, so that they do
// not hold up its shutdown.
func (s *Server) endStreams(h http.Handler, long genericapirequest.LongRunningRequestCheck) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, ok := genericapirequest.RequestInfoFrom(r.Context())
		if !ok || !long(r, info) {
			h.ServeHTTP(w, r)
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		stop := context.AfterFunc(s.serving, cancel)
		defer stop()
		h.ServeHTTP(w, r.WithContext(s.calm(ctx, info)))
	})
}

// mayFence reports who may hold a role and so fence its writes with it.
func mayFence(u user.Info, r role.Name) bool {
	switch r {
	case role.Scheduler:
		return u.GetName() == user.KubeScheduler
	case role.Controllers:
		return u.GetName() == user.KubeControllerManager ||
			strings.HasPrefix(u.GetName(), serviceaccount.MakeUsername(metav1.NamespaceSystem, ""))
	}
	return false
}

// withFence takes a request's fence from its header into its context, if the
// user may hold the role; from anyone else a fence means nothing.
func withFence(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value := r.Header.Get(role.Header)
		if value == "" {
			h.ServeHTTP(w, r)
			return
		}
		fence, err := role.Parse(value)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if u, ok := genericapirequest.UserFrom(r.Context()); ok && mayFence(u, fence.Role) {
			r = r.WithContext(role.With(r.Context(), fence))
		}
		h.ServeHTTP(w, r)
	})
}
