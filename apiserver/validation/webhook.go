package validation

import (
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/util/webhook"
)

const maxWebhookSeconds = 30

// hook is what the two kinds of webhooks have in common.
type hook struct {
	name         string
	config       admissionregistrationv1.WebhookClientConfig
	rules        []admissionregistrationv1.RuleWithOperations
	failure      *admissionregistrationv1.FailurePolicyType
	match        *admissionregistrationv1.MatchPolicyType
	namespaces   *metav1.LabelSelector
	objects      *metav1.LabelSelector
	sideEffects  *admissionregistrationv1.SideEffectClass
	seconds      *int32
	reviews      []string
	reinvocation *admissionregistrationv1.ReinvocationPolicyType
	conditions   []admissionregistrationv1.MatchCondition
}

func validatingHooks(c *admissionregistrationv1.ValidatingWebhookConfiguration) (out []hook) {
	for i := range c.Webhooks {
		h := &c.Webhooks[i]
		out = append(out, hook{
			h.Name, h.ClientConfig, h.Rules, h.FailurePolicy, h.MatchPolicy, h.NamespaceSelector, h.ObjectSelector,
			h.SideEffects, h.TimeoutSeconds, h.AdmissionReviewVersions, nil, h.MatchConditions,
		})
	}
	return out
}

func mutatingHooks(c *admissionregistrationv1.MutatingWebhookConfiguration) (out []hook) {
	for i := range c.Webhooks {
		h := &c.Webhooks[i]
		out = append(out, hook{
			h.Name, h.ClientConfig, h.Rules, h.FailurePolicy, h.MatchPolicy, h.NamespaceSelector, h.ObjectSelector,
			h.SideEffects, h.TimeoutSeconds, h.AdmissionReviewVersions, h.ReinvocationPolicy, h.MatchConditions,
		})
	}
	return out
}

// ValidatingWebhookConfiguration validates webhooks.
func ValidatingWebhookConfiguration(c *admissionregistrationv1.ValidatingWebhookConfiguration) field.ErrorList {
	return hooks(&c.ObjectMeta, validatingHooks(c), nil, true)
}

// ValidatingWebhookConfigurationUpdate validates a change of webhooks.
func ValidatingWebhookConfigurationUpdate(c, old *admissionregistrationv1.ValidatingWebhookConfiguration) field.ErrorList {
	return append(hooks(&c.ObjectMeta, validatingHooks(c), validatingHooks(old), false), bareMetaUpdate(&c.ObjectMeta, &old.ObjectMeta)...)
}

// MutatingWebhookConfiguration validates webhooks that change objects.
func MutatingWebhookConfiguration(c *admissionregistrationv1.MutatingWebhookConfiguration) field.ErrorList {
	return hooks(&c.ObjectMeta, mutatingHooks(c), nil, true)
}

// MutatingWebhookConfigurationUpdate validates a change of such webhooks.
func MutatingWebhookConfigurationUpdate(c, old *admissionregistrationv1.MutatingWebhookConfiguration) field.ErrorList {
	return append(hooks(&c.ObjectMeta, mutatingHooks(c), mutatingHooks(old), false), bareMetaUpdate(&c.ObjectMeta, &old.ObjectMeta)...)
}

// hookCheck is what webhooks are held against; older ones may have had what is
// refused today.
type hookCheck struct {
	*problems

	sideEffects, anyReviews, sameNames, anyValue, sameConditions bool
	exprs                                                        *expressions
}

func reviewVersions() []string { return []string{"v1", "v1beta1"} }

func quietEffects() []admissionregistrationv1.SideEffectClass {
	return []admissionregistrationv1.SideEffectClass{
		admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.SideEffectClassNoneOnDryRun,
	}
}

func hooks(m *metav1.ObjectMeta, now, before []hook, isNew bool) field.ErrorList {
	p := bareMeta(m, false, apimachinery.NameIsDNSSubdomain)
	c := &hookCheck{problems: &p, exprs: &expressions{problems: &p}}
	if !isNew {
		c.tolerate(now, before)
	}
	seen := map[string]bool{}
	for i := range now {
		h, at := &now[i], field.NewPath("webhooks").Index(i)
		c.check(at, h)
		c.reviews(at.Child("admissionReviewVersions"), h.reviews)
		if h.name != "" && seen[h.name] && !c.sameNames {
			p.duplicate(at.Child("name"), h.name)
		}
		seen[h.name] = true
	}
	return p.list
}

func (c *hookCheck) tolerate(now, before []hook) {
	seen := map[string]bool{}
	c.sameConditions = len(now) == len(before)
	for i := range before {
		h := &before[i]
		c.sideEffects = c.sideEffects || h.sideEffects == nil || !slices.Contains(quietEffects(), *h.sideEffects)
		c.anyReviews = c.anyReviews || len(h.reviews) > 0 && !slices.ContainsFunc(h.reviews, func(v string) bool { return slices.Contains(reviewVersions(), v) })
		c.sameNames = c.sameNames || seen[h.name]
		seen[h.name] = true
		for _, s := range []*metav1.LabelSelector{h.namespaces, h.objects} {
			c.anyValue = c.anyValue || s != nil && len(metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, nil)) > 0
		}
		for _, m := range h.conditions {
			c.exprs.keep(m.Expression)
		}
		c.sameConditions = c.sameConditions && equality.Semantic.DeepEqual(now[i].conditions, h.conditions)
	}
}

func (c *hookCheck) check(at *field.Path, h *hook) {
	c.add(validation.IsFullyQualifiedName(at.Child("name"), h.name)...)
	for i := range h.rules {
		ruleWithOperations(c.problems, at.Child("rules").Index(i), &h.rules[i])
	}
	policies(c.problems, at, h.failure, h.match)
	c.effects(at.Child("sideEffects"), h.sideEffects)
	if n := h.seconds; n != nil && (*n > maxWebhookSeconds || *n < 1) {
		c.invalid(at.Child("timeoutSeconds"), *n, "the timeout value must be between 1 and 30 seconds")
	}
	options := metavalidation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: c.anyValue}
	if h.namespaces != nil {
		c.add(metavalidation.ValidateLabelSelector(h.namespaces, options, at.Child("namespaceSelector"))...)
	}
	if h.objects != nil {
		c.add(metavalidation.ValidateLabelSelector(h.objects, options, at.Child("objectSelector"))...)
	}
	if h.reinvocation != nil {
		oneOf(c.problems, at.Child("reinvocationPolicy"), *h.reinvocation,
			admissionregistrationv1.IfNeededReinvocationPolicy, admissionregistrationv1.NeverReinvocationPolicy)
	}
	switch client, s := at.Child("clientConfig"), h.config.Service; {
	case (h.config.URL == nil) == (s == nil):
		c.required(client, "exactly one of url or service is required")
	case s != nil:
		c.add(webhook.ValidateWebhookService(client.Child("service"), s.Name, s.Namespace, s.Path, deref(s.Port))...)
	default:
		c.add(webhook.ValidateWebhookURL(client.Child("url"), *h.config.URL, true)...)
	}
	if !c.sameConditions {
		c.exprs.conditions(at.Child("matchConditions"), h.conditions, false)
	}
}

func policies(p *problems, at *field.Path, failure *admissionregistrationv1.FailurePolicyType, match *admissionregistrationv1.MatchPolicyType) {
	if failure != nil {
		oneOf(p, at.Child("failurePolicy"), *failure, admissionregistrationv1.Fail, admissionregistrationv1.Ignore)
	}
	if match != nil {
		oneOf(p, at.Child("matchPolicy"), *match, admissionregistrationv1.Equivalent, admissionregistrationv1.Exact)
	}
}

func (c *hookCheck) effects(at *field.Path, e *admissionregistrationv1.SideEffectClass) {
	allowed := quietEffects()
	if c.sideEffects {
		allowed = append(allowed, admissionregistrationv1.SideEffectClassSome, admissionregistrationv1.SideEffectClassUnknown)
	}
	if e != nil {
		oneOf(c.problems, at, *e, allowed...)
		return
	}
	var names []string
	for _, a := range allowed {
		names = append(names, string(a))
	}
	c.required(at, "must specify one of "+strings.Join(names, ", "))
}

func (c *hookCheck) reviews(at *field.Path, versions []string) {
	known := strings.Join(reviewVersions(), ", ")
	if len(versions) == 0 {
		c.required(at, "must specify one of "+known)
		return
	}
	seen, accepted := map[string]bool{}, false
	for i, v := range versions {
		if seen[v] {
			c.invalid(at.Index(i), v, "duplicate version")
			continue
		}
		seen[v] = true
		c.problems.check(at.Index(i), v, validation.IsDNS1035Label)
		accepted = accepted || slices.Contains(reviewVersions(), v)
	}
	if !accepted && !c.anyReviews {
		c.invalid(at, versions, "must include at least one of "+known)
	}
}

// ruleWithOperations validates which requests are meant.
func ruleWithOperations(p *problems, at *field.Path, r *admissionregistrationv1.RuleWithOperations) {
	path := at.Child("operations")
	if len(r.Operations) == 0 {
		p.required(path, "")
	}
	if len(r.Operations) > 1 && slices.Contains(r.Operations, admissionregistrationv1.OperationAll) {
		p.invalid(path, r.Operations, "if '*' is present, must not specify other operations")
	}
	for i, o := range r.Operations {
		oneOf(p, path.Index(i), o, admissionregistrationv1.OperationAll, admissionregistrationv1.Connect,
			admissionregistrationv1.Create, admissionregistrationv1.Delete, admissionregistrationv1.Update)
	}
	ruleNames(p, at.Child("apiGroups"), r.APIGroups, "if '*' is present, must not specify other API groups")
	ruleNames(p, at.Child("apiVersions"), r.APIVersions, "if '*' is present, must not specify other API versions")
	for i, version := range r.APIVersions {
		if version == "" {
			p.required(at.Child("apiVersions").Index(i), "")
		}
	}
	ruleResources(p, at.Child("resources"), r.Resources)
	if r.Scope != nil {
		oneOf(p, at.Child("scope"), *r.Scope, admissionregistrationv1.AllScopes, admissionregistrationv1.ClusterScope, admissionregistrationv1.NamespacedScope)
	}
}

func ruleNames(p *problems, at *field.Path, list []string, complaint string) {
	if len(list) == 0 {
		p.required(at, "")
	}
	if len(list) > 1 && slices.Contains(list, "*") {
		p.invalid(at, list, complaint)
	}
}

func ruleResources(p *problems, at *field.Path, list []string) {
	if len(list) == 0 {
		p.required(at, "")
	}
	wholes, everywhere := map[string]bool{}, map[string]bool{}
	plain := false // whether the last resource without a subresource is one by name
	for i, text := range list {
		if text == "" {
			p.required(at.Index(i), "")
			continue
		}
		resource, sub, ok := strings.Cut(text, "/")
		if !ok {
			plain = text != "*"
			continue
		}
		if wholes[resource] {
			p.invalid(at.Index(i), text, fmt.Sprintf("if '%s/*' is present, must not specify %s", resource, text))
		}
		if everywhere[sub] {
			p.invalid(at.Index(i), text, fmt.Sprintf("if '*/%s' is present, must not specify %s", sub, text))
		}
		wholes[resource] = wholes[resource] || sub == "*"
		everywhere[sub] = everywhere[sub] || resource == "*"
	}
	if len(list) > 1 && slices.Contains(list, "*/*") {
		p.invalid(at, list, "if '*/*' is present, must not specify other resources")
	}
	if slices.Contains(list, "*") && plain {
		p.invalid(at, list, "if '*' is present, must not specify other resources without subresources")
	}
}
