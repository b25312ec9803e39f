package apiserver

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	noopoteltrace "go.opentelemetry.io/otel/trace/noop"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	mutatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	validatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	webhookinitializer "k8s.io/apiserver/pkg/admission/plugin/webhook/initializer"
	mutatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	validatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
	quota "k8s.io/apiserver/pkg/quota/v1"
	genericapiserver "k8s.io/apiserver/pkg/server"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"

	"skein.dev/skein/apiserver/admit"
)

const admissionGroup = "admissionregistration.k8s.io/"

// wantsQuota is the part of the quota plugin that is told how to count.
type wantsQuota interface{ SetQuotaConfiguration(c quota.Configuration) }

// admission are our own rules and, after them, what users configure: policies
// before webhooks, as upstream has them. A webhook that changes an object has
// the mutating rules run once more over what it made of it.
func (s *Server) admission(cfg *genericapiserver.RecommendedConfig) (admission.Interface, error) {
	files, err := readAdmissionFile(s.cfg.AdmissionFile)
	if err != nil {
		return nil, err
	}
	security, err := admit.PodSecurityConfig(files[podSecurityPlugin])
	if err != nil {
		return nil, err
	}
	rationed := s.onDemand(cfg, func() (admission.Interface, error) { return newQuota(files.of(quotaPlugin)) }, "/resourcequotas")
	rationed.always = files[quotaPlugin] != nil // it may limit what no quota names
	chain := admission.NewChainHandler(
		admit.Chain(admit.Config{Reader: reader{s}, Authorizer: s.authz, RBAC: s.rbac, Resource: s.resourceOf, PodSecurity: security}),
		s.onDemand(cfg, func() (admission.Interface, error) { return mutatingpolicy.NewPlugin(nil) },
			admissionGroup+"mutatingadmissionpolicies"),
		s.onDemand(cfg, func() (admission.Interface, error) {
			return mutatingwebhook.NewMutatingWebhook(files.of(mutatingPlugin))
		},
			admissionGroup+"mutatingwebhookconfigurations"),
		s.onDemand(cfg, func() (admission.Interface, error) { return validatingpolicy.NewPlugin(nil) },
			admissionGroup+"validatingadmissionpolicies"),
		s.onDemand(cfg, func() (admission.Interface, error) {
			return validatingwebhook.NewValidatingAdmissionWebhook(files.of(validatingPlugin))
		},
			admissionGroup+"validatingwebhookconfigurations"),
		rationed,
	)
	// Only a set of registered plugins gets the second run.
	const name = "Skein"
	plugins := admission.NewPlugins()
	plugins.Register(name, func(io.Reader) (admission.Interface, error) { return chain, nil })
	return plugins.NewFromPlugins([]string{name}, unconfigured{}, nothing{}, nil)
}

type unconfigured struct{}

func (unconfigured) ConfigFor(string) (io.Reader, error) { return nil, nil } //nolint:nilnil // there is none

type nothing struct{}

func (nothing) Initialize(admission.Interface) {}

// onDemand is a plugin of k8s.io/apiserver that is made when the first object
// exists that configures it. Until then it costs a look into the replica: most
// clusters have none, and each plugin brings an environment for expressions,
// informers and polls.
type onDemand struct {
	s       *Server
	kind    string // "group/resource" of its configuration
	always  bool   // a file configures it too
	make    func() (admission.Interface, error)
	prepare func(admission.Interface) (start func() (ready func() error), err error)

	plugin atomic.Pointer[admission.Interface]

	mu    sync.Mutex // held while the plugin is made; guards the fields below
	made  admission.Interface
	ready func() error // nil: nothing is made; made is waited for by it
}

var (
	_ admission.MutationInterface   = (*onDemand)(nil)
	_ admission.ValidationInterface = (*onDemand)(nil)
)

func (s *Server) onDemand(cfg *genericapiserver.RecommendedConfig, makes func() (admission.Interface, error), resource string) *onDemand {
	prepare := func(p admission.Interface) (func() func() error, error) { return s.equip(cfg, p) }
	return &onDemand{s: s, kind: resource, make: makes, prepare: prepare}
}

// equip gives a plugin what it asks for. Its informers run after start; what
// that returns waits until the plugin can judge every kind that is served.
func (s *Server) equip(cfg *genericapiserver.RecommendedConfig, p admission.Interface) (start func() (ready func() error), err error) {
	loopback := cfg.LoopbackClientConfig
	client, err := kubernetes.NewForConfig(loopback)
	if err != nil {
		return nil, err
	}
	dyn, err := dynamic.NewForConfig(loopback)
	if err != nil {
		return nil, err
	}
	stop := s.base.Done()
	own := &paramInformers{SharedInformerFactory: s.Informers(client), make: func() informers.SharedInformerFactory { return s.Informers(client) }}
	kinds := &mapper{ResettableRESTMapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery())), server: s}
	if w, ok := p.(initializer.WantsExcludedAdmissionResources); ok {
		w.SetExcludedAdmissionResources(questions())
	}
	answer := newAwaited(client)
	initializer.New(answer, dyn, own, s.authz, utilfeature.DefaultFeatureGate, cfg.EffectiveVersion, stop, kinds).Initialize(p)
	webhookinitializer.NewPluginInitializer(
		webhook.NewDefaultAuthenticationInfoResolverWrapper(nil, nil, loopback, noopoteltrace.NewTracerProvider()),
		resolver{s},
	).Initialize(p)
	if w, ok := p.(wantsQuota); ok {
		w.SetQuotaConfiguration(quotaRules())
	}
	if err := admission.ValidateInitialization(p); err != nil {
		return nil, err
	}
	return func() func() error {
		own.SharedInformerFactory.Start(stop)
		if _, ok := p.(*mutatingpolicy.Plugin); ok {
			return func() error { return answer.wait(s.base) }
		}
		return func() error { return nil }
	}, nil
}

// questions are the resources that are asked and never stored. No policy may
// stand in the way of who somebody is or what he may do.
func questions() []schema.GroupResource {
	authn, authz := "authentication.k8s.io", "authorization.k8s.io"
	return []schema.GroupResource{
		{Group: authn, Resource: "selfsubjectreviews"},
		{Group: authn, Resource: "tokenreviews"},
		{Group: authz, Resource: "localsubjectaccessreviews"},
		{Group: authz, Resource: "selfsubjectaccessreviews"},
		{Group: authz, Resource: "selfsubjectrulesreviews"},
		{Group: authz, Resource: "subjectaccessreviews"},
	}
}

// get returns the plugin, nil while nothing configures it.
func (o *onDemand) get() (admission.Interface, error) {
	if p := o.plugin.Load(); p != nil {
		return *p, nil
	}
	if !o.always && !o.s.has(o.kind) {
		return nil, nil //nolint:nilnil // nothing to ask
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if p := o.plugin.Load(); p != nil {
		return *p, nil
	}
	if o.ready == nil {
		p, err := o.make()
		if err != nil {
			return nil, fmt.Errorf("make admission by %s: %w", o.kind, err)
		}
		start, err := o.prepare(p)
		if err != nil {
			return nil, fmt.Errorf("prepare admission by %s: %w", o.kind, err)
		}
		o.made, o.ready = p, start()
	}
	// It runs now. If it is not ready in time, the next request waits for this
	// one instead of starting another.
	if err := o.ready(); err != nil {
		return nil, fmt.Errorf("start admission by %s: %w", o.kind, err)
	}
	o.plugin.Store(&o.made)
	return o.made, nil
}

// has reports whether the replica holds an object of the "group/resource".
func (s *Server) has(resource string) bool {
	r := s.resources[resource]
	return r != nil && r.Keep.Any(s.cfg.Store.Local())
}

// Handles implements admission.Interface.
func (*onDemand) Handles(admission.Operation) bool { return true }

// Admit implements admission.MutationInterface.
func (o *onDemand) Admit(ctx context.Context, a admission.Attributes, i admission.ObjectInterfaces) error {
	p, err := o.get()
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if m, ok := p.(admission.MutationInterface); ok && p.Handles(a.GetOperation()) {
		return m.Admit(ctx, a, i)
	}
	return nil
}

// Validate implements admission.ValidationInterface.
func (o *onDemand) Validate(ctx context.Context, a admission.Attributes, i admission.ObjectInterfaces) error {
	p, err := o.get()
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if v, ok := p.(admission.ValidationInterface); ok && p.Handles(a.GetOperation()) {
		return v.Validate(ctx, a, i)
	}
	return nil
}
