// Package policystatus tells in each ValidatingAdmissionPolicy's status which
// of its expressions do not fit the kinds that it is about (KEP-3488).
//
// Its invariant: a generation is checked once; what its warnings say is of the
// schemas of that moment.
package policystatus

import (
	"context"
	"fmt"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	"k8s.io/client-go/discovery/cached/memory"
	listers "k8s.io/client-go/listers/admissionregistration/v1"
	"k8s.io/client-go/restmapper"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/run"
)

// Controller reconciles ValidatingAdmissionPolicies.
type Controller struct {
	kit      component.Kit
	policies listers.ValidatingAdmissionPolicyLister
}

// New takes its informer from kit.
func New(kit component.Kit) (run.Controller, error) {
	policies := kit.Informers.Admissionregistration().V1().ValidatingAdmissionPolicies()
	c := &Controller{kit: kit, policies: policies.Lister()}
	return run.Controller{
		Name:   "validatingadmissionpolicy-status-controller",
		Reads:  []run.Source{{Informer: policies.Informer()}},
		Writes: []string{"validatingadmissionpolicies.admissionregistration.k8s.io/status"},
		// A check compiles every expression for every kind that the policy names.
		Workers: 1, Timeout: time.Minute, Reconcile: c.reconcile,
	}, nil
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	policy, err := c.policies.Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read policy: %w", err)
	}
	if policy.Status.ObservedGeneration >= policy.Generation {
		return 0, nil
	}
	up := policy.DeepCopy()
	up.Status.TypeChecking = &admissionv1.TypeChecking{ExpressionWarnings: c.check(policy)}
	up.Status.ObservedGeneration = policy.Generation
	_, err = c.kit.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies().UpdateStatus(ctx, up, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("update status of policy: %w", err)
	}
	return 0, nil
}

// check asks for the kinds and their schemas anew: policies change seldom, and
// a mesh at rest should not remember either for them.
func (c *Controller) check(policy *admissionv1.ValidatingAdmissionPolicy) []admissionv1.ExpressionWarning {
	served := c.kit.Client.Discovery()
	checker := validating.TypeChecker{
		SchemaResolver: &resolver.ClientDiscoveryResolver{Discovery: served},
		RestMapper:     restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(served)),
	}
	return checker.Check(policy)
}
