package kinds

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// ValidatingAdmissionPolicy declares policies that judge objects by expressions.
func ValidatingAdmissionPolicy() registry.Kind {
	k := extension(declare[admissionregistrationv1.ValidatingAdmissionPolicy, admissionregistrationv1.ValidatingAdmissionPolicyList](
		admissionVersion(), "validatingadmissionpolicies"))
	k.Columns = []metav1.TableColumnDefinition{
		num("Validations", "Validations indicates the number of validation rules defined in this configuration"), paramKindColumn(), ageColumn(),
	}
	k.Row = row(func(p *admissionregistrationv1.ValidatingAdmissionPolicy) []any {
		return []any{int64(len(p.Spec.Validations)), paramKind(p.Spec.ParamKind), age(p.CreationTimestamp)}
	})
	k.Default = defaults(defaulting.ValidatingAdmissionPolicy)
	divide(&k, true, rules[*admissionregistrationv1.ValidatingAdmissionPolicy]{
		validate: validation.ValidatingAdmissionPolicy, validateUpdate: validation.ValidatingAdmissionPolicyUpdate, needsVersion: true,
	}, rules[*admissionregistrationv1.ValidatingAdmissionPolicy]{
		validateUpdate: validation.ValidatingAdmissionPolicyStatusUpdate, keepsMeta: true, needsVersion: true,
	})
	return k
}

// MutatingAdmissionPolicy declares policies that change objects by expressions.
func MutatingAdmissionPolicy() registry.Kind {
	k := extension(declare[admissionregistrationv1.MutatingAdmissionPolicy, admissionregistrationv1.MutatingAdmissionPolicyList](
		admissionVersion(), "mutatingadmissionpolicies"))
	k.Columns = []metav1.TableColumnDefinition{
		num("Mutations", "Mutation indicates the number of mutations rules defined in this configuration"), paramKindColumn(), ageColumn(),
	}
	k.Row = row(func(p *admissionregistrationv1.MutatingAdmissionPolicy) []any {
		return []any{int64(len(p.Spec.Mutations)), paramKind(p.Spec.ParamKind), age(p.CreationTimestamp)}
	})
	k.Default = defaults(defaulting.MutatingAdmissionPolicy)
	count(&k, rules[*admissionregistrationv1.MutatingAdmissionPolicy]{
		validate: validation.MutatingAdmissionPolicy, validateUpdate: validation.MutatingAdmissionPolicyUpdate, needsVersion: true,
	}, "Spec")
	return k
}

func paramKindColumn() metav1.TableColumnDefinition {
	return str("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy")
}

func paramKind(p *admissionregistrationv1.ParamKind) string {
	if p == nil {
		return unset
	}
	return p.APIVersion + "/" + p.Kind
}

func policyBindingColumns() []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		str("PolicyName", "PolicyName indicates the policy definition which the policy binding binded to"),
		str("ParamRef", "ParamRef indicates the param resource which sets the configuration param"), ageColumn(),
	}
}

// paramRef shows what a policy's parameters are, "*" being the namespace that
// the object itself is in.
func paramRef(r *admissionregistrationv1.ParamRef) string {
	switch {
	case r == nil:
		return unset
	case r.Name != "":
		return or(r.Namespace, "*") + "/" + r.Name
	case r.Selector != nil:
		return r.Selector.String()
	default:
		return unset
	}
}

// ValidatingAdmissionPolicyBinding declares what policies hold for.
func ValidatingAdmissionPolicyBinding() registry.Kind {
	k := extension(declare[admissionregistrationv1.ValidatingAdmissionPolicyBinding, admissionregistrationv1.ValidatingAdmissionPolicyBindingList](
		admissionVersion(), "validatingadmissionpolicybindings"))
	k.Columns = policyBindingColumns()
	k.Row = row(func(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) []any {
		return []any{b.Spec.PolicyName, paramRef(b.Spec.ParamRef), age(b.CreationTimestamp)}
	})
	k.Default = defaults(defaulting.ValidatingAdmissionPolicyBinding)
	count(&k, rules[*admissionregistrationv1.ValidatingAdmissionPolicyBinding]{
		validate: validation.ValidatingAdmissionPolicyBinding, validateUpdate: validation.ValidatingAdmissionPolicyBindingUpdate, needsVersion: true,
	}, "Spec")
	return k
}

// MutatingAdmissionPolicyBinding declares what policies that change objects hold for.
func MutatingAdmissionPolicyBinding() registry.Kind {
	k := extension(declare[admissionregistrationv1.MutatingAdmissionPolicyBinding, admissionregistrationv1.MutatingAdmissionPolicyBindingList](
		admissionVersion(), "mutatingadmissionpolicybindings"))
	k.Columns = policyBindingColumns()
	k.Row = row(func(b *admissionregistrationv1.MutatingAdmissionPolicyBinding) []any {
		return []any{b.Spec.PolicyName, paramRef(b.Spec.ParamRef), age(b.CreationTimestamp)}
	})
	k.Default = defaults(defaulting.MutatingAdmissionPolicyBinding)
	count(&k, rules[*admissionregistrationv1.MutatingAdmissionPolicyBinding]{
		validate: validation.MutatingAdmissionPolicyBinding, validateUpdate: validation.MutatingAdmissionPolicyBindingUpdate, needsVersion: true,
	}, "Spec")
	return k
}
