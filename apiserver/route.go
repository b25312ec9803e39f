package apiserver

import (
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/emicklei/go-restful/v3"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/tools/cache"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// shortcut leads requests for the kinds of this server straight to their
// handlers. The library's way there goes through the aggregator's routing and
// twice through a list of all groups and patterns, which costs as much as a
// third of a GET. Whatever it does not know for certain it leaves to that way:
// other paths and methods, patches (whose content types the library checks),
// and group versions that an APIService hands to another server.
type shortcut struct {
	routes map[target]restful.RouteFunction // complete before the first request
	remote atomic.Pointer[map[schema.GroupVersion]bool]
}

// target is what a path names, with its values left out.
type target struct {
	method        string
	gv            schema.GroupVersion
	resource, sub string
	namespaced    bool
	named         bool
}

// aim takes a path of the form that resources have apart; ok is false for any
// other. In a pattern the values stand in braces, and so do not matter.
func aim(method, path string) (t target, ok bool) {
	t.method = method
	rest, core := strings.CutPrefix(path, "/api/")
	if !core {
		if rest, ok = strings.CutPrefix(path, "/apis/"); !ok {
			return t, false
		}
		if t.gv.Group, rest, ok = strings.Cut(rest, "/"); !ok {
			return t, false
		}
	}
	if t.gv.Version, rest, ok = strings.Cut(rest, "/"); !ok {
		return t, false
	}
	var parts [5]string
	n := 0
	for more := true; more; n++ {
		if n == len(parts) {
			return t, false
		}
		if parts[n], rest, more = strings.Cut(rest, "/"); parts[n] == "" {
			return t, false
		}
	}
	at := parts[:n]
	// A namespace's own subresources have the same form as a list in it.
	if n >= 3 && at[0] == "namespaces" && at[2] != "status" && at[2] != "finalize" {
		t.namespaced, at = true, at[2:]
	}
	if len(at) > 3 {
		return t, false
	}
	t.resource = at[0]
	t.named = len(at) > 1
	if len(at) > 2 {
		t.sub = at[2]
	}
	return t, true
}

// learn takes in the routes of a server that is complete.
func (s *shortcut) learn(g *genericapiserver.GenericAPIServer) {
	s.routes = map[target]restful.RouteFunction{}
	for _, ws := range g.Handler.GoRestfulContainer.RegisteredWebServices() {
		for _, r := range ws.Routes() {
			if t, ok := aim(r.Method, r.Path); ok && direct(&r) {
				s.routes[t] = r.Function
			}
		}
	}
}

// direct reports whether a route may be called without the library's checks.
func direct(r *restful.Route) bool {
	switch r.Method {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete:
	default:
		return false
	}
	makes := map[string]bool{}
	for _, m := range r.Produces {
		makes[m] = true
	}
	return !strings.Contains(r.Path, ":*") && len(r.Filters) == 0 && len(r.If) == 0 &&
		makes[runtime.ContentTypeJSON] && makes[runtime.ContentTypeProtobuf] &&
		len(r.Consumes) == 1 && r.Consumes[0] == "*/*"
}

// accepted reports whether a client takes what every direct route makes.
func accepted(accept string) bool {
	if accept == "" {
		return true
	}
	for part := range strings.SplitSeq(accept, ",") {
		media, _, _ := strings.Cut(part, ";")
		switch strings.TrimSpace(media) {
		case runtime.ContentTypeJSON, runtime.ContentTypeProtobuf, "*/*":
			return true
		}
	}
	return false
}

// find returns the handler of a request, nil if it must go the long way.
func (s *shortcut) find(r *http.Request) restful.RouteFunction {
	t, ok := aim(r.Method, r.URL.Path)
	if !ok || len(r.Header["Accept"]) > 1 || !accepted(r.Header.Get("Accept")) {
		return nil
	}
	f := s.routes[t]
	if f == nil {
		return nil
	}
	if remote := s.remote.Load(); remote != nil && (*remote)[t.gv] {
		return nil
	}
	return f
}

// wrap puts the shortcut in front of the way that everything can go.
func (s *shortcut) wrap(long http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := s.find(r); f != nil {
			f(restful.NewRequest(r), restful.NewResponse(w))
			return
		}
		long.ServeHTTP(w, r)
	})
}

// follow keeps remote at what the APIServices say.
func (s *shortcut) follow(services cache.SharedIndexInformer) error {
	look := func() {
		remote := map[schema.GroupVersion]bool{}
		for _, obj := range services.GetStore().List() {
			if svc, ok := obj.(*apiregistrationv1.APIService); ok && svc.Spec.Service != nil {
				remote[schema.GroupVersion{Group: svc.Spec.Group, Version: svc.Spec.Version}] = true
			}
		}
		s.remote.Store(&remote)
	}
	_, err := services.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { look() }, UpdateFunc: func(any, any) { look() }, DeleteFunc: func(any) { look() },
	})
	return err
}
