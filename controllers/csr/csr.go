// Package csr approves, signs and forgets CertificateSigningRequests.
//
// Its invariant: nothing is signed but what was approved, by the signer it
// was addressed to and within what that signer may sign.
package csr

import (
	"context"
	"fmt"
	"time"

	authv1 "k8s.io/api/authorization/v1"
	certv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	certlisters "k8s.io/client-go/listers/certificates/v1"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/run"
)

// Controller is one of the three.
type Controller struct {
	kit      component.Kit
	requests certlisters.CertificateSigningRequestLister
	signers  map[string]*Authority
}

func build(kit component.Kit, name string, writes []string, signers map[string]*Authority, step func(*Controller) func(context.Context, run.Key) (time.Duration, error)) (run.Controller, error) {
	inf := kit.Informers.Certificates().V1().CertificateSigningRequests()
	c := &Controller{kit: kit, requests: inf.Lister(), signers: signers}
	return run.Controller{
		Name: "certificatesigningrequest-" + name + "-controller", Reads: []run.Source{{Informer: inf.Informer()}}, Writes: writes, Reconcile: step(c),
	}, nil
}

// NewSigner signs approved requests, with clients those of clients and with
// serving those of kubelets' servers.
func NewSigner(kit component.Kit, clients, serving *Authority) (run.Controller, error) {
	signers := map[string]*Authority{
		certv1.KubeAPIServerClientSignerName: clients, certv1.KubeAPIServerClientKubeletSignerName: clients,
		certv1.KubeletServingSignerName: serving, "kubernetes.io/legacy-unknown": clients,
	}
	return build(kit, "signing", []string{"certificatesigningrequests.certificates.k8s.io/status"}, signers,
		func(c *Controller) func(context.Context, run.Key) (time.Duration, error) { return c.sign })
}

// NewApprover approves the requests of nodes for client certificates.
func NewApprover(kit component.Kit) (run.Controller, error) {
	return build(kit, "approving", []string{"certificatesigningrequests.certificates.k8s.io/approval", "subjectaccessreviews.authorization.k8s.io"}, nil,
		func(c *Controller) func(context.Context, run.Key) (time.Duration, error) { return c.approve })
}

// NewCleaner forgets old requests.
func NewCleaner(kit component.Kit) (run.Controller, error) {
	return build(kit, "cleaner", []string{"certificatesigningrequests.certificates.k8s.io"}, nil,
		func(c *Controller) func(context.Context, run.Key) (time.Duration, error) { return c.clean })
}

// get returns the request of a key, nil when it is gone.
func (c *Controller) get(key run.Key) (*certv1.CertificateSigningRequest, error) {
	r, err := c.requests.Get(key.Name)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // documented
	}
	if err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	return r, nil
}

func (c *Controller) sign(ctx context.Context, key run.Key) (time.Duration, error) {
	r, err := c.get(key)
	if r == nil {
		return 0, err
	}
	approved, ended := decided(r)
	authority := c.signers[r.Spec.SignerName]
	if !approved || ended || len(r.Status.Certificate) > 0 || authority == nil {
		return 0, nil
	}
	up := r.DeepCopy()
	parsed, err := Parse(r.Spec.Request)
	if err == nil {
		err = Permitted(r.Spec.SignerName, parsed, r.Spec.Usages)
	}
	if err == nil {
		up.Status.Certificate, err = authority.Sign(parsed, r.Spec.Usages, r.Spec.ExpirationSeconds, time.Now())
	}
	if err != nil { // no other try can help
		up.Status.Conditions = append(up.Status.Conditions, certv1.CertificateSigningRequestCondition{
			Type: certv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: "SignerValidationFailure", Message: err.Error(), LastUpdateTime: metav1.Now(),
		})
	}
	_, err = c.kit.Client.CertificatesV1().CertificateSigningRequests().UpdateStatus(ctx, up, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("write certificate: %w", err)
	}
	return 0, nil
}

func (c *Controller) approve(ctx context.Context, key run.Key) (time.Duration, error) {
	r, err := c.get(key)
	if r == nil {
		return 0, err
	}
	if approved, ended := decided(r); approved || ended || len(r.Status.Certificate) > 0 {
		return 0, nil
	}
	parsed, err := Parse(r.Spec.Request)
	if err != nil {
		return 0, nil //nolint:nilerr // validation refuses it; people decide about the rest
	}
	for _, right := range Permission(r, parsed) {
		allowed, err := c.allowed(ctx, r, right)
		if err != nil {
			return 0, err
		}
		if !allowed {
			continue
		}
		up := r.DeepCopy()
		up.Status.Conditions = append(up.Status.Conditions, certv1.CertificateSigningRequestCondition{
			Type: certv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "AutoApproved",
			Message: "Auto approving kubelet client certificate after SubjectAccessReview.",
		})
		_, err = c.kit.Client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, up.Name, up, metav1.UpdateOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return 0, fmt.Errorf("approve request: %w", err)
		}
		return 0, nil
	}
	return 0, nil
}

func (c *Controller) allowed(ctx context.Context, r *certv1.CertificateSigningRequest, right authv1.ResourceAttributes) (bool, error) {
	extra := map[string]authv1.ExtraValue{}
	for k, v := range r.Spec.Extra {
		extra[k] = authv1.ExtraValue(v)
	}
	got, err := c.kit.Client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authv1.SubjectAccessReview{Spec: authv1.SubjectAccessReviewSpec{
		User: r.Spec.Username, UID: r.Spec.UID, Groups: r.Spec.Groups, Extra: extra, ResourceAttributes: &right,
	}}, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("ask for the right of %s: %w", r.Spec.Username, err)
	}
	return got.Status.Allowed, nil
}

func (c *Controller) clean(ctx context.Context, key run.Key) (time.Duration, error) {
	r, err := c.get(key)
	if r == nil {
		return 0, err
	}
	if left := time.Until(Expires(r)); left > 0 {
		return left, nil
	}
	err = c.kit.Client.CertificatesV1().CertificateSigningRequests().Delete(ctx, r.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &r.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return 0, fmt.Errorf("delete old request: %w", err)
	}
	return 0, nil
}
