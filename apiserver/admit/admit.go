// Package admit holds the rules that look beyond the object a request
// changes: at its namespace, its service account, its user.
//
// Its invariant: rules run in the order of Chain, all that change an object
// before all that only check it, and they read the replica alone.
package admit

import (
	"context"
	"fmt"
	"iter"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	podsecurityconfig "k8s.io/pod-security-admission/admission/api"

	"skein.dev/skein/apiserver/authz"
)

// Reader finds objects in the replica; nil means that there is none.
type Reader interface {
	ServiceAccount(namespace, name string) *corev1.ServiceAccount
	Pod(namespace, name string) *corev1.Pod
	Node(name string) *corev1.Node
	// Get finds an object of the "group/resource".
	Get(resource, namespace, name string) runtime.Object
	// Each yields the objects of the "group/resource" in a namespace, or in
	// all with "". Nobody may change them.
	Each(resource, namespace string) iter.Seq[runtime.Object]
	// CatchUp makes the next reads see all that was written anywhere before.
	CatchUp(ctx context.Context) error
}

func namespaceOf(r Reader, name string) *corev1.Namespace {
	ns, _ := r.Get("/namespaces", "", name).(*corev1.Namespace)
	return ns
}

// Config is what the rules look at.
type Config struct {
	Reader     Reader
	Authorizer authorizer.Authorizer
	RBAC       *authz.RBAC
	// Resource is the plural name of a kind of the cluster's own; "" if it is
	// not known.
	Resource func(schema.GroupVersionKind) string
	// PodSecurity says what holds where namespaces say nothing, and who is
	// exempt; nil: nothing, nobody.
	PodSecurity *podsecurityconfig.PodSecurityConfiguration
}

// Chain returns all rules.
func Chain(c Config) admission.Interface {
	create := []admission.Operation{admission.Create}
	return admission.NewChainHandler(
		&rule{mutate: c.namespaceLifecycle, on: []admission.Operation{admission.Create, admission.Update, admission.Delete}},
		&rule{mutate: c.defaultLimits, validate: c.checkLimits, on: []admission.Operation{admission.Create, admission.Update}},
		&rule{mutate: c.serviceAccount, on: create},
		&rule{mutate: c.nodeRestriction, on: []admission.Operation{admission.Create, admission.Update, admission.Delete}},
		&rule{mutate: c.priority, on: create},
		&rule{mutate: defaultTolerations, on: []admission.Operation{admission.Create, admission.Update}},
		&rule{mutate: c.storageClass, on: create},
		&rule{mutate: inUse, on: create},
		&rule{mutate: c.overhead, validate: c.checkOverhead, on: create},
		&rule{validate: c.signer, on: []admission.Operation{admission.Update}},
		&rule{validate: c.podSigner, on: []admission.Operation{admission.Update}},
		&rule{validate: c.attest, on: []admission.Operation{admission.Create, admission.Update}},
		&rule{validate: subject, on: create},
		&rule{mutate: c.ingressClass, on: create},
		&rule{validate: c.parameters, on: []admission.Operation{admission.Create, admission.Update}},
		&rule{validate: c.deviceAdmin, on: []admission.Operation{admission.Create, admission.Update}},
		&rule{validate: c.claimStatus, on: []admission.Operation{admission.Update}},
		&rule{validate: newPodSecurity(c).validate, on: []admission.Operation{admission.Create, admission.Update}},
		&rule{validate: c.escalation, on: []admission.Operation{admission.Create, admission.Update}},
	)
}

// rule is one rule: it changes the object or checks it.
type rule struct {
	on               []admission.Operation
	mutate, validate func(ctx context.Context, a admission.Attributes) error
}

var (
	_ admission.MutationInterface   = (*rule)(nil)
	_ admission.ValidationInterface = (*rule)(nil)
)

// Handles implements admission.Interface.
func (r *rule) Handles(op admission.Operation) bool {
	return slices.Contains(r.on, op)
}

// Admit implements admission.MutationInterface.
func (r *rule) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if r.mutate == nil {
		return nil
	}
	return r.mutate(ctx, a)
}

// Validate implements admission.ValidationInterface.
func (r *rule) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if r.validate == nil {
		return nil
	}
	return r.validate(ctx, a)
}

func is(a admission.Attributes, group, resource, sub string) bool {
	return a.GetResource().GroupResource() == schema.GroupResource{Group: group, Resource: resource} && a.GetSubresource() == sub
}

func refuse(a admission.Attributes, format string, args ...any) error {
	return admission.NewForbidden(a, fmt.Errorf(format, args...))
}

// newPod returns the pod that a request creates or changes, if it is one.
func newPod(a admission.Attributes) *corev1.Pod {
	if !is(a, "", "pods", "") {
		return nil
	}
	p, _ := a.GetObject().(*corev1.Pod)
	return p
}
