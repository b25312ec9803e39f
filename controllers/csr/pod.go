package csr

import (
	"context"
	"fmt"
	"time"

	certv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	certlisters "k8s.io/client-go/listers/certificates/v1"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/run"
)

// podRequestLife is how long a request for a pod's certificate is kept, whatever became
// of it: the kubelet has taken the answer long before.
const podRequestLife = 15 * time.Minute

// podCleaner forgets old PodCertificateRequests.
type podCleaner struct {
	kit      component.Kit
	requests certlisters.PodCertificateRequestLister
}

// NewPodCleaner forgets old requests for pods' certificates.
func NewPodCleaner(kit component.Kit) (run.Controller, error) {
	inf := kit.Informers.Certificates().V1().PodCertificateRequests()
	c := &podCleaner{kit: kit, requests: inf.Lister()}
	return run.Controller{
		Name: "podcertificaterequest-cleaner-controller", Reads: []run.Source{{Informer: inf.Informer()}},
		Writes: []string{"podcertificaterequests.certificates.k8s.io"}, Reconcile: c.reconcile,
	}, nil
}

// PodRequestExpires is when a request may go.
func PodRequestExpires(r *certv1.PodCertificateRequest) time.Time {
	return r.CreationTimestamp.Add(podRequestLife)
}

func (c *podCleaner) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	r, err := c.requests.PodCertificateRequests(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read request: %w", err)
	}
	if left := time.Until(PodRequestExpires(r)); left > 0 {
		return left, nil
	}
	err = c.kit.Client.CertificatesV1().PodCertificateRequests(key.Namespace).Delete(ctx, key.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &r.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return 0, fmt.Errorf("delete old request: %w", err)
	}
	return 0, nil
}
