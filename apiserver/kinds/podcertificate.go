package kinds

import (
	"context"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// podCertificateSeconds is how long a pod's certificate may live if nobody says.
const podCertificateSeconds = int32(86400)

// PodCertificateRequest declares kubelets' requests for the certificates of
// pods. Signers answer in the status, once.
func PodCertificateRequest() registry.Kind {
	spec := certificatesv1.PodCertificateRequestSpec{}
	k := namespaced[certificatesv1.PodCertificateRequest, certificatesv1.PodCertificateRequestList](
		certificatesv1.SchemeGroupVersion, "podcertificaterequests")
	k.Columns = []metav1.TableColumnDefinition{
		str("PodName", describe(spec, "podName")), str("ServiceAccountName", describe(spec, "serviceAccountName")),
		str("NodeName", describe(spec, "nodeName")), str("SignerName", describe(spec, "signerName")),
		str("State", "Is the request Pending, Issued, Denied, or Failed?"),
		str("UnverifiedUserAnnotations", describe(spec, "unverifiedUserAnnotations")),
	}
	k.Row = row(func(r *certificatesv1.PodCertificateRequest) []any {
		return []any{
			r.Spec.PodName, r.Spec.ServiceAccountName, string(r.Spec.NodeName), r.Spec.SignerName, podCertificateState(r),
			labels.FormatLabels(r.Spec.UnverifiedUserAnnotations),
		}
	})
	k.Select = selects(func(r *certificatesv1.PodCertificateRequest) fields.Set {
		return fields.Set{
			"spec.signerName": r.Spec.SignerName, "spec.podName": r.Spec.PodName, "spec.nodeName": string(r.Spec.NodeName),
		}
	})
	k.Default = defaults(func(r *certificatesv1.PodCertificateRequest) {
		if r.Spec.MaxExpirationSeconds == nil {
			seconds := podCertificateSeconds
			r.Spec.MaxExpirationSeconds = &seconds
		}
	})
	divide(&k, false, rules[*certificatesv1.PodCertificateRequest]{
		validate: validation.PodCertificateRequest, validateUpdate: validation.PodCertificateRequestUpdate, needsVersion: true,
	}, rules[*certificatesv1.PodCertificateRequest]{keepsMeta: true, needsVersion: true})
	k.Status.ValidateUpdate = func(_ context.Context, o, old runtime.Object) field.ErrorList {
		return validation.PodCertificateRequestAnswer(o.(*certificatesv1.PodCertificateRequest), old.(*certificatesv1.PodCertificateRequest), time.Now())
	}
	return k
}

func podCertificateState(r *certificatesv1.PodCertificateRequest) string {
	state := "Pending"
	for _, c := range r.Status.Conditions {
		switch c.Type {
		case certificatesv1.PodCertificateRequestConditionTypeIssued, certificatesv1.PodCertificateRequestConditionTypeDenied,
			certificatesv1.PodCertificateRequestConditionTypeFailed:
			state = c.Type
		}
	}
	return state
}
