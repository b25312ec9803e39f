package apiserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	crdlisters "k8s.io/apiextensions-apiserver/pkg/client/listers/apiextensions/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapiserver "k8s.io/apiserver/pkg/server"

	"skein.dev/skein/api/store"
	"skein.dev/skein/apiserver/authn"
	"skein.dev/skein/apiserver/authz"
	"skein.dev/skein/apiserver/publish"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/replica"
)

const (
	// shutdownGrace is how long the library's hooks may take to have begun.
	shutdownGrace = 2 * time.Second
	// drainGrace is how long requests under way may take when the server stops.
	drainGrace = 10 * time.Second
)

// Server is one peer's API server.
type Server struct {
	cfg        Config
	scheme     *registry.Scheme
	resources  map[string]*registry.Resource // by "group/resource"
	hub        *replica.Hub                  // reads the store for all informers
	kept       *registry.Options             // says where objects are kept
	crds       crdlisters.CustomResourceDefinitionLister
	generic    *genericapiserver.GenericAPIServer
	handler    http.Handler // the whole chain
	short      shortcut
	others     http.Handler // describes the APIs of other servers
	publisher  *publish.Publisher
	tokens     *authn.Tokens
	keys       *tokenKeys
	seals      *seals // nil: nothing is sealed
	bearer     authenticator.Token
	headers    *authenticatorfactory.RequestHeaderConfig // nil: nobody speaks for others
	rbac       *authz.RBAC
	nodes      *authz.Node
	authz      authorizer.Authorizer
	rules      authorizer.RuleResolver
	outside    *outside          // who is known by others' word
	chosen     *chosen           // nil: no file says who decides
	loaded     map[string][]byte // what configuration files held when they were last read
	audit      auditing
	fair       *fairness
	encryption *encryption // nil: no file
	stopping   atomic.Bool // readiness fails, nothing else does yet
	begun      atomic.Bool // the first objects exist
	once       sync.Once
	policed    chan struct{} // closed when the authorizer has seen the first roles

	// base is the parent of in-process requests; serving that of streams.
	// Both end with Run, serving first.
	base, serving       context.Context //nolint:containedctx // the lives of requests, which Run ends
	endBase, endServing context.CancelFunc
}

// New builds the server. Nothing runs and nothing is written before Run.
func New(cfg Config) (*Server, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, resources: map[string]*registry.Resource{}, loaded: map[string][]byte{}, policed: make(chan struct{})}
	s.hub = replica.NewHub(cfg.Store, registry.Root+"/", cfg.Log)
	s.base, s.endBase = context.WithCancel(rootContext())
	s.serving, s.endServing = context.WithCancel(s.base)
	if err := s.build(); err != nil {
		s.endBase()
		return nil, fmt.Errorf("build api server: %w", err)
	}
	return s, nil
}

// rootContext is where in-process requests descend from: they have no caller
// above them, as requests from a network have none.
func rootContext() context.Context {
	return context.Background() //nolint:forbidigo // the root of requests, ended by Run
}

// Run serves until ctx ends. It returns when all requests have ended.
func (s *Server) Run(ctx context.Context) error {
	defer s.generic.Destroy()
	defer s.publisher.Close()
	defer s.endBase()
	defer s.endServing()
	stopAuditing, err := s.runAuditing()
	if err != nil {
		return err
	}
	defer stopAuditing()
	hooks, stopHooks := context.WithCancel(context.WithoutCancel(ctx))
	defer stopHooks()
	s.generic.RunPostStartHooks(hooks)

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.maintain(gctx) })
	g.Go(func() error { return s.fair.run(gctx) })
	if s.cfg.Listener != nil {
		g.Go(func() error { return s.serve(gctx) })
	}
	g.Go(func() error {
		<-gctx.Done()
		s.stopping.Store(true)
		s.linger()
		s.settle(hooks)
		stopHooks() // first the library's controllers, which are clients of ours
		s.endServing()
		return nil
	})
	return g.Wait()
}

// linger goes on serving while those who send requests here find out that they
// should send them elsewhere.
func (s *Server) linger() {
	if s.cfg.ShutdownDelay > 0 {
		<-time.After(s.cfg.ShutdownDelay)
	}
}

// settle waits a little for the library's hooks to have begun: one that is
// stopped while it waits for its informer ends the whole process.
func (s *Server) settle(ctx context.Context) {
	client := http.Client{Transport: s.ClientConfig(selfUser).Transport, Timeout: shutdownGrace}
	for end := time.Now().Add(shutdownGrace); time.Now().Before(end); {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, inProcessHost+"/readyz/poststarthook/crd-informer-synced", nil)
		if err != nil {
			return
		}
		resp, err := client.Do(r)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// serve answers on the listener.
func (s *Server) serve(ctx context.Context) error {
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 32 * time.Second,
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    1 << 20,
		ErrorLog:          serverLog(s.cfg.Log),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 1000},
		TLSConfig:         s.tls(),
	}
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	var wg sync.WaitGroup
	defer wg.Wait()
	stopped := make(chan struct{})
	wg.Go(func() {
		defer close(stopped)
		<-ctx.Done()
		s.linger()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainGrace)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			_ = srv.Close()
		}
	})
	err := srv.ServeTLS(s.cfg.Listener, "", "")
	if ctx.Err() == nil {
		return fmt.Errorf("serve api: %w", err)
	}
	<-stopped
	return nil
}

func (s *Server) tls() *tls.Config {
	c := s.cfg.TLS.Clone()
	c.NextProtos = []string{"h2", "http/1.1"}
	c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	if s.cfg.ClientCAs != nil || s.headers != nil {
		// Verification is the authenticator's: a certificate that does not
		// verify must be told so as 401, not break the handshake.
		c.ClientAuth = tls.RequestClientCert
		c.ClientCAs = x509.NewCertPool()
		if s.cfg.ClientCAs != nil {
			c.ClientCAs = s.cfg.ClientCAs.Clone()
		}
		if s.headers != nil { // clients show only what is asked for
			c.ClientCAs.AppendCertsFromPEM(s.cfg.FrontProxy.CAPEM)
		}
	}
	return c
}

// Handler is the whole server as one handler, for tests and for those who
// bring their own listener.
func (s *Server) Handler() http.Handler { return s.handler }

// front serves the open paths and hands on the rest.
func (s *Server) front(chain http.Handler) http.Handler {
	open := http.NewServeMux()
	any := false
	for _, h := range s.cfg.Handlers {
		if h.Open {
			open.Handle(h.Path, h.Handler)
			any = true
		}
	}
	if !any {
		return chain
	}
	open.Handle("/", chain)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The mux would redirect unclean paths; the API answers them itself.
		for _, h := range s.cfg.Handlers {
			if h.Open && strings.HasPrefix(r.URL.Path, h.Path) {
				open.ServeHTTP(w, r)
				return
			}
		}
		chain.ServeHTTP(w, r)
	})
}

// first is the readiness check of what a cluster begins with.
func (s *Server) first(*http.Request) error {
	if !s.begun.Load() {
		return errors.New("the cluster's first objects are not there yet")
	}
	return nil
}

// stays is the readiness check of a server that is about to stop.
func (s *Server) stays(*http.Request) error {
	if s.stopping.Load() {
		return errors.New("process is shutting down")
	}
	return nil
}

// quorum is the readiness check of the store.
func (s *Server) quorum(r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	_, err := s.cfg.Store.Current(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return store.ErrNoQuorum
	}
	return err
}
