package validation

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// MutatingAdmissionPolicy validates a policy that changes objects.
func MutatingAdmissionPolicy(p *admissionregistrationv1.MutatingAdmissionPolicy) field.ErrorList {
	return mutatingPolicy(p, nil)
}

// MutatingAdmissionPolicyUpdate validates a change of such a policy.
func MutatingAdmissionPolicyUpdate(p, old *admissionregistrationv1.MutatingAdmissionPolicy) field.ErrorList {
	return append(mutatingPolicy(p, old), bareMetaUpdate(&p.ObjectMeta, &old.ObjectMeta)...)
}

func mutatingPolicy(m, old *admissionregistrationv1.MutatingAdmissionPolicy) field.ErrorList {
	p := bareMeta(&m.ObjectMeta, false, apimachinery.NameIsDNSSubdomain)
	s, path := &m.Spec, field.NewPath("spec")
	e := &expressions{problems: &p, params: s.ParamKind != nil}
	same := false
	if old != nil {
		same = equality.Semantic.DeepEqual(s.ParamKind, old.Spec.ParamKind) && equality.Semantic.DeepEqual(s.MatchConditions, old.Spec.MatchConditions)
		keepConditions(e, old.Spec.MatchConditions)
		for _, change := range old.Spec.Mutations {
			if change.ApplyConfiguration != nil {
				e.keep(change.ApplyConfiguration.Expression)
			}
			if change.JSONPatch != nil {
				e.keep(change.JSONPatch.Expression)
			}
		}
	}
	policyMatch(&p, path, s.FailurePolicy, s.ParamKind, s.MatchConstraints)
	changes(&p, path.Child("matchConstraints"), s.MatchConstraints)
	if !same {
		e.conditions(path.Child("matchConditions"), s.MatchConditions, e.params)
	}
	e.compose()
	e.variables(path.Child("variables"), s.Variables)
	if len(s.Mutations) == 0 {
		p.required(path.Child("mutations"), "mutations must contain at least one item")
	}
	for i := range s.Mutations {
		e.mutation(path.Child("mutations").Index(i), &s.Mutations[i])
	}
	requireOneOf(&p, path.Child("reinvocationPolicy"), s.ReinvocationPolicy,
		admissionregistrationv1.IfNeededReinvocationPolicy, admissionregistrationv1.NeverReinvocationPolicy)
	return p.list
}

// changes refuses operations after which there is nothing to change.
func changes(p *problems, path *field.Path, m *admissionregistrationv1.MatchResources) {
	if m == nil {
		return
	}
	for _, r := range m.ResourceRules {
		for _, o := range r.Operations {
			oneOf(p, path.Child("resourceRules", "operations"), o, admissionregistrationv1.OperationAll,
				admissionregistrationv1.Connect, admissionregistrationv1.Create, admissionregistrationv1.Update)
		}
	}
}

func (e *expressions) mutation(at *field.Path, m *admissionregistrationv1.Mutation) {
	requireOneOf(e.problems, at.Child("patchType"), m.PatchType,
		admissionregistrationv1.PatchTypeApplyConfiguration, admissionregistrationv1.PatchTypeJSONPatch)
	apply, json := at.Child("applyConfiguration"), at.Child("jsonPatch")
	switch m.PatchType {
	case admissionregistrationv1.PatchTypeJSONPatch:
		if m.JSONPatch == nil {
			e.required(json, "must be specified when patchType is JSONPatch")
		} else {
			e.patch(json, m.JSONPatch.Expression, jsonPatchExpression)
		}
		if m.ApplyConfiguration != nil {
			e.invalid(apply, "{applyConfiguration}", "must not be specified when patchType is JSONPatch")
		}
	case admissionregistrationv1.PatchTypeApplyConfiguration:
		if m.ApplyConfiguration == nil {
			e.required(apply, "must be specified when patchType is ApplyConfiguration")
		} else {
			e.patch(apply, m.ApplyConfiguration.Expression, applyExpression)
		}
		if m.JSONPatch != nil {
			e.invalid(json, "{jsonPatch}", "must not be specified when patchType is ApplyConfiguration")
		}
	}
}

// MutatingAdmissionPolicyBinding validates what such a policy is bound to.
func MutatingAdmissionPolicyBinding(b *admissionregistrationv1.MutatingAdmissionPolicyBinding) field.ErrorList {
	p := bareMeta(&b.ObjectMeta, false, apimachinery.NameIsDNSSubdomain)
	path := field.NewPath("spec")
	policyBinding(&p, path, b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources)
	changes(&p, path.Child("matchResources"), b.Spec.MatchResources)
	return p.list
}

// MutatingAdmissionPolicyBindingUpdate validates a change of a binding.
func MutatingAdmissionPolicyBindingUpdate(b, old *admissionregistrationv1.MutatingAdmissionPolicyBinding) field.ErrorList {
	return append(MutatingAdmissionPolicyBinding(b), bareMetaUpdate(&b.ObjectMeta, &old.ObjectMeta)...)
}
