package review

import (
	"context"
	"errors"
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
)

const anyVersion = "*"

// attributes reads what a valid review asks about.
func attributes(u user.Info, res *authorizationv1.ResourceAttributes, path *authorizationv1.NonResourceAttributes) authorizer.AttributesRecord {
	if res == nil {
		return authorizer.AttributesRecord{User: u, Verb: path.Verb, Path: path.Path}
	}
	a := authorizer.AttributesRecord{
		User: u, Verb: res.Verb, Namespace: res.Namespace, APIGroup: res.Group, APIVersion: res.Version,
		Resource: res.Resource, Subresource: res.Subresource, Name: res.Name, ResourceRequest: true,
	}
	if a.APIVersion == "" {
		a.APIVersion = anyVersion
	}
	if s := res.LabelSelector; s != nil {
		if s.RawSelector != "" {
			parsed, err := labels.Parse(s.RawSelector)
			if a.LabelSelectorParsingErr = err; err == nil {
				a.LabelSelectorRequirements, _ = parsed.Requirements()
			}
		} else {
			a.LabelSelectorRequirements, a.LabelSelectorParsingErr = labelRequirements(s.Requirements)
		}
	}
	if s := res.FieldSelector; s != nil {
		if s.RawSelector != "" {
			parsed, err := fields.ParseSelector(s.RawSelector)
			if a.FieldSelectorParsingErr = err; err == nil {
				a.FieldSelectorRequirements = parsed.Requirements()
			}
		} else {
			a.FieldSelectorRequirements, a.FieldSelectorParsingErr = fieldRequirements(s.Requirements)
		}
	}
	return a
}

// labelRequirements are those that are understood. All of them are to hold, so
// leaving one out only asks for more than what was meant.
func labelRequirements(all []metav1.LabelSelectorRequirement) (out labels.Requirements, err error) {
	known := map[metav1.LabelSelectorOperator]selection.Operator{
		metav1.LabelSelectorOpIn: selection.In, metav1.LabelSelectorOpNotIn: selection.NotIn,
		metav1.LabelSelectorOpExists: selection.Exists, metav1.LabelSelectorOpDoesNotExist: selection.DoesNotExist,
	}
	for _, r := range all {
		op, ok := known[r.Operator]
		if !ok {
			err = errors.Join(err, fmt.Errorf("%q is not a valid label selector operator", r.Operator))
			continue
		}
		values := r.Values
		if len(values) == 0 {
			values = nil
		}
		req, bad := labels.NewRequirement(r.Key, op, values)
		if bad != nil {
			err = errors.Join(err, bad)
			continue
		}
		out = append(out, *req)
	}
	return out, err
}

// fieldRequirements are those that field selectors can express today.
func fieldRequirements(all []metav1.FieldSelectorRequirement) (out fields.Requirements, err error) {
	for _, r := range all {
		op := selection.Equals
		switch r.Operator {
		case metav1.FieldSelectorOpIn:
		case metav1.FieldSelectorOpNotIn:
			op = selection.NotEquals
		case metav1.FieldSelectorOpExists, metav1.FieldSelectorOpDoesNotExist:
			err = errors.Join(err, fmt.Errorf("fieldSelectors do not yet support %v", r.Operator))
			continue
		default:
			err = errors.Join(err, fmt.Errorf("%q is not a valid field selector operator", r.Operator))
			continue
		}
		if len(r.Values) != 1 {
			err = errors.Join(err, fmt.Errorf("fieldSelectors in %s must have one value", r.Operator))
			continue
		}
		out = append(out, fields.Requirement{Field: r.Key, Operator: op, Value: r.Values[0]})
	}
	return out, err
}

// checkAttributes demands one question, and selectors that can be understood.
func checkAttributes(res *authorizationv1.ResourceAttributes, path *authorizationv1.NonResourceAttributes) (errs field.ErrorList) {
	if (res == nil) == (path == nil) {
		errs = append(errs, field.Invalid(field.NewPath("spec"), path, "exactly one of nonResourceAttributes or resourceAttributes must be specified"))
	}
	if res == nil {
		return errs
	}
	both := func(at *field.Path, raw string, n int) {
		if raw != "" && n > 0 {
			errs = append(errs, field.Invalid(at.Child("rawSelector"), raw, "may not specified at the same time as requirements"))
		}
		if raw == "" && n == 0 {
			errs = append(errs, field.Required(at.Child("requirements"), fmt.Sprintf("when %s is specified, requirements or rawSelector is required", at)))
		}
	}
	if s := res.FieldSelector; s != nil {
		at := field.NewPath("spec.resourceAttributes", "fieldSelector")
		both(at, s.RawSelector, len(s.Requirements))
		for i, r := range s.Requirements {
			errs = append(errs, metavalidation.ValidateFieldSelectorRequirement(r,
				metavalidation.FieldSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}, at.Child("requirements").Index(i))...)
		}
	}
	if s := res.LabelSelector; s != nil {
		at := field.NewPath("spec.resourceAttributes", "labelSelector")
		both(at, s.RawSelector, len(s.Requirements))
		for i, r := range s.Requirements {
			errs = append(errs, metavalidation.ValidateLabelSelectorRequirement(r,
				metavalidation.LabelSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}, at.Child("requirements").Index(i))...)
		}
	}
	return errs
}

// checkMeta demands that a question have no metadata.
func checkMeta(m metav1.ObjectMeta, detail string) field.ErrorList {
	m.ManagedFields = nil
	if equality.Semantic.DeepEqual(m, metav1.ObjectMeta{}) {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata"), m, detail)}
}

func checkSubject(s *authorizationv1.SubjectAccessReviewSpec) field.ErrorList {
	errs := checkAttributes(s.ResourceAttributes, s.NonResourceAttributes)
	if s.User == "" && len(s.Groups) == 0 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "user"), s.User, "at least one of user or group must be specified"))
	}
	return errs
}

func invalid(kind string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(authorizationv1.SchemeGroupVersion.WithKind(kind).GroupKind(), "", errs)
}

func (c Config) decide(ctx context.Context, u user.Info, res *authorizationv1.ResourceAttributes, path *authorizationv1.NonResourceAttributes) authorizationv1.SubjectAccessReviewStatus {
	decision, reason, err := c.Authorizer.Authorize(ctx, attributes(u, res, path))
	st := authorizationv1.SubjectAccessReviewStatus{
		Allowed: decision == authorizer.DecisionAllow, Denied: decision == authorizer.DecisionDeny, Reason: reason,
	}
	if err != nil {
		st.EvaluationError = err.Error()
	}
	return st
}

func subject(s *authorizationv1.SubjectAccessReviewSpec) user.Info {
	extra := map[string][]string{}
	for k, v := range s.Extra {
		extra[k] = v
	}
	return &user.DefaultInfo{Name: s.User, Groups: s.Groups, UID: s.UID, Extra: extra}
}

func (c Config) access(ctx context.Context, obj runtime.Object) error {
	r, ok := obj.(*authorizationv1.SubjectAccessReview)
	if !ok {
		return wrong(obj)
	}
	errs := append(checkSubject(&r.Spec), checkMeta(r.ObjectMeta, "must be empty")...)
	if err := invalid("SubjectAccessReview", errs); err != nil {
		return err
	}
	r.Status = c.decide(ctx, subject(&r.Spec), r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	return nil
}

func (c Config) localAccess(ctx context.Context, obj runtime.Object) error {
	r, ok := obj.(*authorizationv1.LocalSubjectAccessReview)
	if !ok {
		return wrong(obj)
	}
	ns := genericapirequest.NamespaceValue(ctx)
	if r.Namespace == "" {
		r.Namespace = ns
	}
	if r.Namespace != ns {
		return apierrors.NewBadRequest("spec.resourceAttributes.namespace must match namespace: " + ns)
	}
	errs := checkSubject(&r.Spec)
	meta := r.ObjectMeta
	meta.Namespace = ""
	errs = append(errs, checkMeta(meta, "must be empty except for namespace")...)
	if res := r.Spec.ResourceAttributes; res != nil && res.Namespace != ns {
		errs = append(errs, field.Invalid(field.NewPath("spec.resourceAttributes.namespace"), res.Namespace, "must match metadata.namespace"))
	}
	if path := r.Spec.NonResourceAttributes; path != nil {
		errs = append(errs, field.Invalid(field.NewPath("spec.nonResourceAttributes"), path, "disallowed on this kind of request"))
	}
	if err := invalid("LocalSubjectAccessReview", errs); err != nil {
		return err
	}
	r.Status = c.decide(ctx, subject(&r.Spec), r.Spec.ResourceAttributes, nil)
	return nil
}

func (c Config) selfAccess(ctx context.Context, obj runtime.Object) error {
	r, ok := obj.(*authorizationv1.SelfSubjectAccessReview)
	if !ok {
		return wrong(obj)
	}
	errs := append(checkAttributes(r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes), checkMeta(r.ObjectMeta, "must be empty")...)
	if err := invalid("SelfSubjectAccessReview", errs); err != nil {
		return err
	}
	u, err := requester(ctx)
	if err != nil {
		return err
	}
	r.Status = c.decide(ctx, u, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	return nil
}
