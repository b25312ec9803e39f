package admit

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
)

// claimStatus asks for a right of its own to each part of a claim's status
// (KEP-4817): who gives devices out binds claims, and a driver speaks of its own
// devices, with a narrower right where it runs on the node that has them.
func (c Config) claimStatus(ctx context.Context, a admission.Attributes) error {
	if !is(a, resourcev1.GroupName, "resourceclaims", "status") {
		return nil
	}
	old, ok1 := a.GetOldObject().(*resourcev1.ResourceClaim)
	claim, ok2 := a.GetObject().(*resourcev1.ResourceClaim)
	if !ok1 || !ok2 {
		return nil
	}
	verb := "update"
	if info, ok := genericapirequest.RequestInfoFrom(ctx); ok {
		verb = info.Verb
	}
	may := func(subresource, verb, namespace, name string) bool {
		d, _, _ := c.Authorizer.Authorize(ctx, authorizer.AttributesRecord{
			User: a.GetUserInfo(), Verb: verb, Namespace: namespace, Name: name, ResourceRequest: true,
			APIGroup: a.GetResource().Group, APIVersion: a.GetResource().Version, Resource: "resourceclaims", Subresource: subresource,
		})
		return d == authorizer.DecisionAllow
	}
	var errs field.ErrorList
	was, is := &old.Status, &claim.Status
	if (!equality.Semantic.DeepEqual(was.Allocation, is.Allocation) || !equality.Semantic.DeepEqual(was.ReservedFor, is.ReservedFor)) &&
		!may(resourcev1.SubresourceBinding, verb, "", "") {
		errs = append(errs, field.Forbidden(field.NewPath("status", "allocation"),
			fmt.Sprintf(`changing status.allocation or status.reservedFor requires resource="resourceclaims/binding", verb=%q permission`, verb)))
	}
	verbs := []string{resourcev1.VerbPrefixArbitraryNode + verb}
	if node := allocatedNode(is.Allocation); node != "" && nodeOfAccount(a) == node {
		verbs = append(verbs, resourcev1.VerbPrefixAssociatedNode+verb)
	}
	for _, driver := range changedDrivers(was, is) {
		if !slices.ContainsFunc(verbs, func(v string) bool { return may(resourcev1.SubresourceDriver, v, a.GetNamespace(), driver) }) {
			errs = append(errs, field.Forbidden(field.NewPath("status", "devices"),
				fmt.Sprintf(`changing status.devices of driver %q requires resource="resourceclaims/driver", verb=%q permission`, driver, verbs)))
		}
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(a.GetKind().GroupKind(), a.GetName(), errs)
	}
	return nil
}

// changedDrivers are those of whose devices something else is said, sorted.
// What is said of a claim without devices is dropped.
func changedDrivers(was, is *resourcev1.ResourceClaimStatus) (drivers []string) {
	if is.Allocation == nil {
		return nil
	}
	same := func(all []resourcev1.AllocatedDeviceStatus, d resourcev1.AllocatedDeviceStatus) bool {
		return slices.ContainsFunc(all, func(o resourcev1.AllocatedDeviceStatus) bool { return equality.Semantic.DeepEqual(o, d) })
	}
	for _, pair := range [][2][]resourcev1.AllocatedDeviceStatus{{was.Devices, is.Devices}, {is.Devices, was.Devices}} {
		for _, d := range pair[1] {
			if !same(pair[0], d) {
				drivers = append(drivers, d.Driver)
			}
		}
	}
	slices.SortFunc(drivers, cmp.Compare[string])
	return slices.Compact(drivers)
}

// allocatedNode is the one node that an allocation is for, "" if it is for others.
func allocatedNode(r *resourcev1.AllocationResult) string {
	if r == nil || r.NodeSelector == nil || len(r.NodeSelector.NodeSelectorTerms) != 1 {
		return ""
	}
	t := r.NodeSelector.NodeSelectorTerms[0]
	if len(t.MatchExpressions) != 0 || len(t.MatchFields) != 1 {
		return ""
	}
	f := t.MatchFields[0]
	if f.Key != "metadata.name" || f.Operator != corev1.NodeSelectorOpIn || len(f.Values) != 1 {
		return ""
	}
	return f.Values[0]
}

// nodeOfAccount is where the pod runs whose token made the request, "" if no
// pod's did.
func nodeOfAccount(a admission.Attributes) string {
	u := a.GetUserInfo()
	if _, _, err := serviceaccount.SplitUsername(u.GetName()); err != nil {
		return ""
	}
	if names := u.GetExtra()[serviceaccount.NodeNameKey]; len(names) == 1 {
		return names[0]
	}
	return ""
}
