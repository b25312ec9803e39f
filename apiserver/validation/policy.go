package validation

import (
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/client-go/util/jsonpath"
)

// The limits of policies.
const (
	maxAuditAnnotations = 20
	maxAuditExpression  = 5 * 1024
)

// ValidatingAdmissionPolicy validates a policy.
func ValidatingAdmissionPolicy(p *admissionregistrationv1.ValidatingAdmissionPolicy) field.ErrorList {
	return validatingPolicy(p, nil)
}

// ValidatingAdmissionPolicyUpdate validates a change of a policy.
func ValidatingAdmissionPolicyUpdate(p, old *admissionregistrationv1.ValidatingAdmissionPolicy) field.ErrorList {
	return append(validatingPolicy(p, old), bareMetaUpdate(&p.ObjectMeta, &old.ObjectMeta)...)
}

func validatingPolicy(v, old *admissionregistrationv1.ValidatingAdmissionPolicy) field.ErrorList {
	p := bareMeta(&v.ObjectMeta, false, apimachinery.NameIsDNSSubdomain)
	s, path := &v.Spec, field.NewPath("spec")
	e := &expressions{problems: &p, params: s.ParamKind != nil}
	same := false
	if old != nil {
		same = equality.Semantic.DeepEqual(s.ParamKind, old.Spec.ParamKind) && equality.Semantic.DeepEqual(s.MatchConditions, old.Spec.MatchConditions)
		keepConditions(e, old.Spec.MatchConditions)
		for _, v := range old.Spec.Validations {
			e.keep(v.Expression)
			e.keep(v.MessageExpression)
		}
		for _, a := range old.Spec.AuditAnnotations {
			e.keep(a.ValueExpression)
		}
	}
	policyMatch(&p, path, s.FailurePolicy, s.ParamKind, s.MatchConstraints)
	if !same {
		e.conditions(path.Child("matchConditions"), s.MatchConditions, e.params)
	}
	if len(s.Variables) > 0 {
		e.compose()
		e.variables(path.Child("variables"), s.Variables)
	}
	if len(s.Validations) == 0 && len(s.AuditAnnotations) == 0 {
		const none = "validations or auditAnnotations must contain at least one item"
		p.required(path.Child("validations"), none)
		p.required(path.Child("auditAnnotations"), none)
		return p.list
	}
	for i := range s.Validations {
		e.validation(path.Child("validations").Index(i), &s.Validations[i])
	}
	e.annotations(path.Child("auditAnnotations"), v.Name, s.AuditAnnotations)
	return p.list
}

func keepConditions(e *expressions, list []admissionregistrationv1.MatchCondition) {
	for _, c := range list {
		e.keep(c.Expression)
	}
}

func policyMatch(p *problems, path *field.Path, failure *admissionregistrationv1.FailurePolicyType,
	params *admissionregistrationv1.ParamKind, match *admissionregistrationv1.MatchResources,
) {
	if failure == nil {
		p.required(path.Child("failurePolicy"), "")
	}
	policies(p, path, failure, nil)
	if params != nil {
		paramKind(p, path.Child("paramKind"), params)
	}
	at := path.Child("matchConstraints")
	if match == nil {
		p.required(at, "")
		return
	}
	matchResources(p, at, match)
	if len(match.ResourceRules) == 0 {
		p.required(at.Child("resourceRules"), "")
	}
}

func paramKind(p *problems, path *field.Path, k *admissionregistrationv1.ParamKind) {
	at := path.Child("apiVersion")
	group, version, ok := strings.Cut(k.APIVersion, "/")
	if !ok {
		group, version = "", k.APIVersion
	}
	join := func(value string, complaints []string, before string) {
		if len(complaints) > 0 {
			p.invalid(at, value, before+strings.Join(complaints, ","))
		}
	}
	switch {
	case k.APIVersion == "":
		p.required(at, "")
	case strings.Count(k.APIVersion, "/") > 1:
		p.invalid(at, k.APIVersion, "unexpected GroupVersion string: "+k.APIVersion)
	default:
		if group != "" {
			join(group, validation.IsDNS1123Subdomain(group), "")
		}
		if version == "" {
			p.invalid(at, k.APIVersion, "version must be specified")
		} else {
			join(version, validation.IsDNS1035Label(version), "")
		}
	}
	at = path.Child("kind")
	if k.Kind == "" {
		p.required(at, "")
		return
	}
	join(k.Kind, validation.IsDNS1035Label(strings.ToLower(k.Kind)), "may have mixed case, but should otherwise match: ")
}

func matchResources(p *problems, path *field.Path, m *admissionregistrationv1.MatchResources) {
	if m == nil {
		return
	}
	if m.MatchPolicy == nil {
		p.required(path.Child("matchPolicy"), "")
	}
	policies(p, path, nil, m.MatchPolicy)
	for _, s := range []struct {
		name     string
		selector *metav1.LabelSelector
	}{{"namespaceSelector", m.NamespaceSelector}, {"objectSelector", m.ObjectSelector}} {
		if s.selector == nil {
			p.required(path.Child(s.name), "")
		} else {
			p.labelSelector(path.Child(s.name), s.selector)
		}
	}
	namedRules(p, path.Child("resourceRules"), m.ResourceRules)
	namedRules(p, path.Child("excludeResourceRules"), m.ExcludeResourceRules)
}

func namedRules(p *problems, path *field.Path, rules []admissionregistrationv1.NamedRuleWithOperations) {
	for i := range rules {
		at, seen := path.Index(i), map[string]bool{}
		for j, name := range rules[i].ResourceNames {
			p.check(at.Child("resourceNames").Index(j), name, content.IsPathSegmentName)
			if seen[name] {
				p.duplicate(at.Child("resourceNames").Index(j), name)
			}
			seen[name] = true
		}
		ruleWithOperations(p, at, &rules[i].RuleWithOperations)
	}
}

func (e *expressions) validation(at *field.Path, v *admissionregistrationv1.Validation) {
	if strings.TrimSpace(v.Expression) == "" {
		e.required(at.Child("expression"), "expression is not specified")
	} else {
		e.compile(at.Child("expression"), &validating.ValidationCondition{Expression: v.Expression}, e.level(v.Expression),
			plugincel.OptionalVariableDeclarations{HasParams: e.params, HasAuthorizer: true})
	}
	const empty = "must be non-empty if specified"
	if text := v.MessageExpression; text != "" && strings.TrimSpace(text) == "" {
		e.invalid(at.Child("messageExpression"), text, empty)
	} else if text != "" {
		e.compile(at.Child("messageExpression"), &validating.MessageExpressionCondition{MessageExpression: text}, e.level(text),
			plugincel.OptionalVariableDeclarations{HasParams: e.params})
	}
	switch message := strings.TrimSpace(v.Message); {
	case v.Message != "" && message == "":
		e.invalid(at.Child("message"), v.Message, empty)
	case strings.ContainsAny(message, "\n\r"):
		e.invalid(at.Child("message"), v.Message, "must not contain line breaks")
	}
	if v.Reason != nil {
		oneOf(e.problems, at.Child("reason"), *v.Reason,
			metav1.StatusReasonForbidden, metav1.StatusReasonInvalid, metav1.StatusReasonRequestEntityTooLarge)
	}
}

func (e *expressions) annotations(path *field.Path, name string, list []admissionregistrationv1.AuditAnnotation) {
	if len(list) > maxAuditAnnotations {
		e.invalid(path, printed(list), fmt.Sprintf("must not have more than %d auditAnnotations", maxAuditAnnotations))
	}
	seen := map[string]bool{}
	for i, a := range list {
		at := path.Index(i)
		if name == "" {
			e.invalid(at.Child("key"), a.Key, "requires metadata.name be non-empty")
		} else {
			e.check(at.Child("key"), name+"/"+a.Key, validation.IsQualifiedName)
		}
		value := at.Child("valueExpression")
		switch text := strings.TrimSpace(a.ValueExpression); {
		case text == "":
			e.required(value, "valueExpression is not specified")
		case len(text) > maxAuditExpression:
			e.required(value, fmt.Sprintf("must not exceed %d bytes in length", maxAuditExpression))
		default:
			e.compileAs(value, a.ValueExpression, &validating.AuditAnnotationCondition{ValueExpression: text}, e.level(a.ValueExpression),
				plugincel.OptionalVariableDeclarations{HasParams: e.params, HasAuthorizer: true})
		}
		if seen[a.Key] {
			e.duplicate(at.Child("key"), a.Key)
		}
		seen[a.Key] = true
	}
}

// ValidatingAdmissionPolicyStatusUpdate validates what type checking found.
func ValidatingAdmissionPolicyStatusUpdate(v, old *admissionregistrationv1.ValidatingAdmissionPolicy) field.ErrorList {
	p := problems{bareMetaUpdate(&v.ObjectMeta, &old.ObjectMeta)}
	path := field.NewPath("status")
	if t := v.Status.TypeChecking; t != nil {
		for i, w := range t.ExpressionWarnings {
			at := path.Child("typeChecking", "expressionWarnings").Index(i)
			p.need(at, "warning", w.Warning)
			if ref := strings.TrimSpace(w.FieldRef); ref == "" {
				p.required(at.Child("fieldRef"), "")
			} else if err := jsonpath.New("spec").Parse("{" + ref + "}"); err != nil {
				p.invalid(at.Child("fieldRef"), ref, fmt.Sprintf("invalid JSONPath: %v", err))
			}
		}
	}
	p.add(metavalidation.ValidateConditions(v.Status.Conditions, path.Child("conditions"))...)
	return p.list
}

// ValidatingAdmissionPolicyBinding validates what a policy is bound to.
func ValidatingAdmissionPolicyBinding(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) field.ErrorList {
	p := bareMeta(&b.ObjectMeta, false, apimachinery.NameIsDNSSubdomain)
	path := field.NewPath("spec")
	policyBinding(&p, path, b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources)
	at, list := path.Child("validationActions"), b.Spec.ValidationActions
	seen := map[admissionregistrationv1.ValidationAction]bool{}
	for i, action := range list {
		oneOf(&p, at.Index(i), action, admissionregistrationv1.Audit, admissionregistrationv1.Deny, admissionregistrationv1.Warn)
		if seen[action] {
			p.duplicate(at.Index(i), action)
		}
		seen[action] = true
	}
	if seen[admissionregistrationv1.Deny] && seen[admissionregistrationv1.Warn] {
		p.invalid(at, list, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)")
	}
	if len(list) == 0 {
		p.required(at, "")
	}
	return p.list
}

// ValidatingAdmissionPolicyBindingUpdate validates a change of a binding.
func ValidatingAdmissionPolicyBindingUpdate(b, old *admissionregistrationv1.ValidatingAdmissionPolicyBinding) field.ErrorList {
	return append(ValidatingAdmissionPolicyBinding(b), bareMetaUpdate(&b.ObjectMeta, &old.ObjectMeta)...)
}

func policyBinding(p *problems, path *field.Path, policy string, ref *admissionregistrationv1.ParamRef, match *admissionregistrationv1.MatchResources) {
	if policy == "" {
		p.required(path.Child("policyName"), "")
	} else {
		p.name(path.Child("policyName"), policy, apimachinery.NameIsDNSSubdomain)
	}
	if ref != nil {
		paramRef(p, path.Child("paramRef"), ref)
	}
	matchResources(p, path.Child("matchResources"), match)
}

func paramRef(p *problems, at *field.Path, r *admissionregistrationv1.ParamRef) {
	const exclusive = "name and selector are mutually exclusive"
	both := r.Name != "" && r.Selector != nil
	if r.Name != "" {
		p.check(at.Child("name"), r.Name, content.IsPathSegmentName)
	}
	p.forbid(at.Child("name"), both, exclusive)
	if r.Selector != nil {
		p.labelSelector(at.Child("selector"), r.Selector)
	}
	p.forbid(at.Child("selector"), both, exclusive)
	if r.Name == "" && r.Selector == nil {
		p.required(at, "one of name or selector must be specified")
	}
	action, allowed := r.ParameterNotFoundAction, []admissionregistrationv1.ParameterNotFoundActionType{
		admissionregistrationv1.DenyAction, admissionregistrationv1.AllowAction,
	}
	if deref(action) == "" {
		p.required(at.Child("parameterNotFoundAction"), "")
	} else if !slices.Contains(allowed, *action) {
		p.add(field.NotSupported(at.Child("parameterNotFoundAction"), action, allowed))
	}
}
