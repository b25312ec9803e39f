package admit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
	podsecurity "k8s.io/pod-security-admission/admission"
	podsecurityconfig "k8s.io/pod-security-admission/admission/api"
	"k8s.io/pod-security-admission/admission/api/load"
	"k8s.io/pod-security-admission/admission/api/validation"
	podsecurityapi "k8s.io/pod-security-admission/api"
	podsecuritymetrics "k8s.io/pod-security-admission/metrics"
	podsecuritypolicy "k8s.io/pod-security-admission/policy"
)

// podSecurityLabels begin the labels by which a namespace asks for a level.
const podSecurityLabels = "pod-security.kubernetes.io/"

// PodSecurityConfig reads a PodSecurityConfiguration; without one everything
// is privileged that no namespace restricts.
func PodSecurityConfig(data []byte) (*podsecurityconfig.PodSecurityConfiguration, error) {
	c, err := load.LoadFromData(data)
	if err != nil {
		return nil, fmt.Errorf("read PodSecurityConfiguration: %w", err)
	}
	if errs := validation.ValidatePodSecurityConfiguration(c); len(errs) > 0 {
		return nil, fmt.Errorf("check PodSecurityConfiguration: %w", errs.ToAggregate())
	}
	return c, nil
}

// podSecurity holds pods to the level that their namespace asks for. The
// checks are the library's; they are made when the first namespace asks, and
// where none does it costs a look at the namespace's labels.
type podSecurity struct {
	reader    Reader
	restricts bool // also where a namespace says nothing
	kinds     podsecurity.DefaultPodSpecExtractor
	library   func() (*podsecurity.Admission, error)
}

func newPodSecurity(c Config) *podSecurity {
	p := &podSecurity{reader: c.Reader}
	config := c.PodSecurity
	if config != nil {
		for _, level := range []string{config.Defaults.Enforce, config.Defaults.Audit, config.Defaults.Warn} {
			p.restricts = p.restricts || level != string(podsecurityapi.LevelPrivileged)
		}
	}
	p.library = sync.OnceValues(func() (*podsecurity.Admission, error) {
		if config == nil {
			var err error
			if config, err = PodSecurityConfig(nil); err != nil {
				return nil, err
			}
		}
		return p.load(config)
	})
	return p
}

func (p *podSecurity) load(config *podsecurityconfig.PodSecurityConfiguration) (*podsecurity.Admission, error) {
	evaluator, err := podsecuritypolicy.NewEvaluator(podsecuritypolicy.DefaultChecks(), nil)
	if err != nil {
		return nil, fmt.Errorf("make pod security checks: %w", err)
	}
	recorder := podsecuritymetrics.NewPrometheusRecorder(podsecurityapi.GetAPIVersion())
	recorder.MustRegister(func(all ...metrics.Registerable) {
		for _, m := range all {
			_ = legacyregistry.Register(m) // only tests have a second server in the process
		}
	})
	a := &podsecurity.Admission{
		Configuration: config, Evaluator: evaluator, Metrics: recorder, PodSpecExtractor: p.kinds,
		NamespaceGetter: p, PodLister: p,
	}
	if err := a.CompleteConfiguration(); err != nil {
		return nil, fmt.Errorf("complete pod security: %w", err)
	}
	if err := a.ValidateConfiguration(); err != nil {
		return nil, fmt.Errorf("check pod security: %w", err)
	}
	return a, nil
}

// GetNamespace implements the library's NamespaceGetter.
func (p *podSecurity) GetNamespace(_ context.Context, name string) (*corev1.Namespace, error) {
	ns := namespaceOf(p.reader, name)
	if ns == nil {
		return nil, apierrors.NewNotFound(corev1.Resource("namespaces"), name)
	}
	return ns, nil
}

// ListPods implements the library's PodLister.
func (p *podSecurity) ListPods(_ context.Context, namespace string) (all []*corev1.Pod, _ error) {
	for obj := range p.reader.Each("/pods", namespace) {
		if pod, ok := obj.(*corev1.Pod); ok {
			all = append(all, pod)
		}
	}
	return all, nil
}

// concerns reports whether a request must be put to the library.
func (p *podSecurity) concerns(a admission.Attributes) bool {
	gr := a.GetResource().GroupResource()
	if gr == corev1.Resource("namespaces") {
		return a.GetSubresource() == "" && (p.restricts || asksForSecurity(a.GetObject()) || asksForSecurity(a.GetOldObject()))
	}
	if !p.kinds.HasPodSpec(gr) {
		return false
	}
	if p.restricts {
		return true
	}
	ns := namespaceOf(p.reader, a.GetNamespace())
	return ns == nil || asksForSecurity(ns)
}

func asksForSecurity(obj runtime.Object) bool {
	ns, ok := obj.(*corev1.Namespace)
	if !ok {
		return false
	}
	for label := range ns.Labels {
		if strings.HasPrefix(label, podSecurityLabels) {
			return true
		}
	}
	return false
}

// validate is the rule.
func (p *podSecurity) validate(ctx context.Context, a admission.Attributes) error {
	if !p.concerns(a) {
		return nil
	}
	library, err := p.library()
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	answer := library.Validate(ctx, securityQuestion{a})
	for _, w := range answer.Warnings {
		warning.AddWarning(ctx, "", w)
	}
	for key, value := range answer.AuditAnnotations {
		audit.AddAuditAnnotation(ctx, podsecurityapi.AuditAnnotationPrefix+key, value)
	}
	if answer.Allowed {
		return nil
	}
	refused := apierrors.StatusError{}
	if generic, ok := errors.AsType[*apierrors.StatusError](admission.NewForbidden(a, errors.New("Not allowed by PodSecurity"))); ok { //nolint:staticcheck // upstream's words
		refused = *generic
	}
	if why := answer.Result; why != nil {
		if why.Message != "" {
			refused.ErrStatus.Message = why.Message
		}
		if why.Reason != "" {
			refused.ErrStatus.Reason = why.Reason
		}
		if why.Details != nil {
			refused.ErrStatus.Details = why.Details
		}
		if why.Code != 0 {
			refused.ErrStatus.Code = why.Code
		}
	}
	return &refused
}

// securityQuestion is a request as the library asks about it. It implements
// the library's Attributes; objects need no conversion, ours are of version v1.
type securityQuestion struct{ admission.Attributes }

func (q securityQuestion) GetObject() (runtime.Object, error) { return q.Attributes.GetObject(), nil }

func (q securityQuestion) GetOldObject() (runtime.Object, error) {
	return q.Attributes.GetOldObject(), nil
}

func (q securityQuestion) GetOperation() admissionv1.Operation {
	return admissionv1.Operation(q.Attributes.GetOperation())
}

func (q securityQuestion) GetUserName() string { return q.GetUserInfo().GetName() }
