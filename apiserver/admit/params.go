package admit

import (
	"context"
	"fmt"
	"slices"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// parameters lets nobody read, by a policy that prints what it compares with,
// objects that he may not read himself.
func (c Config) parameters(ctx context.Context, a admission.Attributes) error {
	if a.GetSubresource() != "" || a.GetResource().Group != admissionregistrationv1.GroupName ||
		slices.Contains(a.GetUserInfo().GetGroups(), user.SystemPrivilegedGroup) {
		return nil
	}
	if kind := paramKind(a.GetObject()); kind != nil {
		if old := paramKind(a.GetOldObject()); old != nil && *old == *kind {
			return nil
		}
		if !c.mayRead(ctx, a, kind, "get", "*", "*") {
			return c.noParameters(a, "paramKind", fmt.Sprintf(`user %v must have "get" permission on all objects of the referenced paramKind (kind=%s, apiVersion=%s)`,
				a.GetUserInfo(), kind.Kind, kind.APIVersion))
		}
		return nil
	}
	ref, policy := paramRef(a.GetObject())
	if ref == nil {
		return nil
	}
	if old, before := paramRef(a.GetOldObject()); old != nil && before == policy && equality.Semantic.DeepEqual(old, ref) {
		return nil
	}
	resource := "validatingadmissionpolicies"
	if _, mutates := a.GetObject().(*admissionregistrationv1.MutatingAdmissionPolicyBinding); mutates {
		resource = "mutatingadmissionpolicies"
	}
	kind := paramKind(c.Reader.Get(admissionregistrationv1.GroupName+"/"+resource, "", policy))
	verb := "get"
	if ref.Name == "" {
		verb = "list"
	}
	if !c.mayRead(ctx, a, kind, verb, ref.Namespace, ref.Name) {
		return c.noParameters(a, "paramRef", fmt.Sprintf("user %v does not have %q permission on the object referenced by paramRef", a.GetUserInfo(), verb))
	}
	return nil
}

func (Config) noParameters(a admission.Attributes, at, detail string) error {
	return apierrors.NewInvalid(a.GetKind().GroupKind(), a.GetName(), field.ErrorList{field.Forbidden(field.NewPath("spec", at), detail)})
}

func paramKind(obj runtime.Object) *admissionregistrationv1.ParamKind {
	switch p := obj.(type) {
	case *admissionregistrationv1.ValidatingAdmissionPolicy:
		return p.Spec.ParamKind
	case *admissionregistrationv1.MutatingAdmissionPolicy:
		return p.Spec.ParamKind
	}
	return nil
}

func paramRef(obj runtime.Object) (ref *admissionregistrationv1.ParamRef, policy string) {
	switch b := obj.(type) {
	case *admissionregistrationv1.ValidatingAdmissionPolicyBinding:
		return b.Spec.ParamRef, b.Spec.PolicyName
	case *admissionregistrationv1.MutatingAdmissionPolicyBinding:
		return b.Spec.ParamRef, b.Spec.PolicyName
	}
	return nil, ""
}

// mayRead asks for as little as is known of what is to be read; of what is not
// known it asks for all.
func (c Config) mayRead(ctx context.Context, a admission.Attributes, kind *admissionregistrationv1.ParamKind, verb, namespace, name string) bool {
	r := schema.GroupVersionResource{Group: "*", Version: "*", Resource: "*"}
	if kind != nil {
		if gv, err := schema.ParseGroupVersion(kind.APIVersion); err == nil {
			r.Group, r.Version = gv.Group, gv.Version
			if resource := c.Resource(gv.WithKind(kind.Kind)); resource != "" {
				r.Resource = resource
			}
		}
	}
	may, _, err := c.Authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: a.GetUserInfo(), Verb: verb, Namespace: namespace, Name: name, ResourceRequest: true,
		APIGroup: r.Group, APIVersion: r.Version, Resource: r.Resource,
	})
	return err == nil && may == authorizer.DecisionAllow
}

// deviceAdmin lets claims see devices that others use only in namespaces that
// are marked for it.
func (c Config) deviceAdmin(_ context.Context, a admission.Attributes) error {
	path := adminAsked(a)
	if path == nil {
		return nil
	}
	ns := namespaceOf(c.Reader, a.GetNamespace())
	if ns != nil && ns.Labels[resourcev1.DRAAdminNamespaceLabelKey] == "true" {
		return nil
	}
	return apierrors.NewInvalid(a.GetKind().GroupKind(), a.GetName(), field.ErrorList{field.Forbidden(path,
		fmt.Sprintf("admin access to devices requires the `%s: true` label on the containing namespace", resourcev1.DRAAdminNamespaceLabelKey))})
}

// adminAsked is where a request newly asks for admin access, nil if it does not.
func adminAsked(a admission.Attributes) *field.Path {
	switch o := a.GetObject().(type) {
	case *resourcev1.ResourceClaim:
		old, _ := a.GetOldObject().(*resourcev1.ResourceClaim)
		if a.GetSubresource() == "status" {
			if old != nil && granted(old) >= 0 {
				return nil
			}
			if i := granted(o); i >= 0 {
				return field.NewPath("status", "allocation", "devices", "results").Index(i).Child("adminAccess")
			}
			return nil
		}
		if i := asked(o.Spec.Devices.Requests); i >= 0 && a.GetOperation() == admission.Create {
			return field.NewPath("spec", "devices", "requests").Index(i).Child("adminAccess")
		}
	case *resourcev1.ResourceClaimTemplate:
		if i := asked(o.Spec.Spec.Devices.Requests); i >= 0 && a.GetOperation() == admission.Create {
			return field.NewPath("spec", "devices", "requests").Index(i).Child("adminAccess")
		}
	}
	return nil
}

func asked(all []resourcev1.DeviceRequest) int {
	return slices.IndexFunc(all, func(r resourcev1.DeviceRequest) bool {
		return r.Exactly != nil && r.Exactly.AdminAccess != nil && *r.Exactly.AdminAccess
	})
}

func granted(c *resourcev1.ResourceClaim) int {
	if c.Status.Allocation == nil {
		return -1
	}
	return slices.IndexFunc(c.Status.Allocation.Devices.Results, func(r resourcev1.DeviceRequestAllocationResult) bool {
		return r.AdminAccess != nil && *r.AdminAccess
	})
}
