package kinds

import (
	"context"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"

	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// CertificateSigningRequest declares requests for certificates. Approvers
// write the approval, signers the status; nobody changes the request.
func CertificateSigningRequest() registry.Kind {
	spec, status := certificatesv1.CertificateSigningRequestSpec{}, certificatesv1.CertificateSigningRequestStatus{}
	k := declare[certificatesv1.CertificateSigningRequest, certificatesv1.CertificateSigningRequestList](
		certificatesv1.SchemeGroupVersion, "certificatesigningrequests", "csr")
	k.Columns = []metav1.TableColumnDefinition{
		ageColumn(), str("SignerName", describe(spec, "signerName")), str("Requestor", describe(spec, "request")),
		str("RequestedDuration", describe(spec, "expirationSeconds")), str("Condition", describe(status, "conditions")),
	}
	k.Row = row(func(c *certificatesv1.CertificateSigningRequest) []any {
		wanted := none
		if n := c.Spec.ExpirationSeconds; n != nil {
			wanted = duration.HumanDuration(time.Duration(*n) * time.Second)
		}
		return []any{age(c.CreationTimestamp), or(c.Spec.SignerName, none), c.Spec.Username, wanted, requestState(c)}
	})
	k.Select = selects(func(c *certificatesv1.CertificateSigningRequest) fields.Set {
		return fields.Set{"spec.signerName": c.Spec.SignerName}
	})
	divide(&k, false, rules[*certificatesv1.CertificateSigningRequest]{
		create: func(c *certificatesv1.CertificateSigningRequest) {
			c.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{}
		},
		update:   func(c, old *certificatesv1.CertificateSigningRequest) { c.Spec = old.Spec },
		validate: validation.CertificateSigningRequest, validateUpdate: validation.CertificateSigningRequestUpdate,
	}, rules[*certificatesv1.CertificateSigningRequest]{
		update: func(c, old *certificatesv1.CertificateSigningRequest) {
			keepDecisions(c, old)
			dateConditions(c, old)
		},
		validateUpdate: validation.CertificateSigningRequestStatusUpdate, reset: []string{"status.conditions"},
	})
	prepare := k.Strategy.PrepareCreate
	k.Strategy.PrepareCreate = func(ctx context.Context, obj runtime.Object) {
		prepare(ctx, obj)
		requestedBy(ctx, obj.(*certificatesv1.CertificateSigningRequest))
	}
	k.Subresources = map[string]*registry.Strategy{"approval": rules[*certificatesv1.CertificateSigningRequest]{
		update: func(c, old *certificatesv1.CertificateSigningRequest) {
			dateConditions(c, old)
			conditions := c.Status.Conditions
			c.Spec, c.Status = old.Spec, *old.Status.DeepCopy()
			c.Status.Conditions = conditions
		},
		validateUpdate: validation.CertificateSigningRequestApproval, reset: []string{"spec", "status.certificate"},
	}.status()}
	return k
}

// requestedBy writes down who asks; signers and approvers go by that.
func requestedBy(ctx context.Context, c *certificatesv1.CertificateSigningRequest) {
	s := &c.Spec
	s.Username, s.UID, s.Groups, s.Extra = "", "", nil, nil
	u, ok := genericapirequest.UserFrom(ctx)
	if !ok {
		return
	}
	s.Username, s.UID, s.Groups = u.GetName(), u.GetUID(), u.GetGroups()
	for key, value := range u.GetExtra() {
		if s.Extra == nil {
			s.Extra = map[string]certificatesv1.ExtraValue{}
		}
		s.Extra[key] = value
	}
}

// keepDecisions lets writers of the status leave approvals and denials as they
// find them, even if they know not all their fields.
func keepDecisions(c, old *certificatesv1.CertificateSigningRequest) {
	for _, t := range []certificatesv1.RequestConditionType{certificatesv1.CertificateApproved, certificatesv1.CertificateDenied} {
		now, had := conditionsOf(c, t), conditionsOf(old, t)
		if len(now) != len(had) {
			continue
		}
		for i, at := range now {
			c.Status.Conditions[at] = old.Status.Conditions[had[i]]
		}
	}
}

func conditionsOf(c *certificatesv1.CertificateSigningRequest, t certificatesv1.RequestConditionType) (at []int) {
	for i := range c.Status.Conditions {
		if c.Status.Conditions[i].Type == t {
			at = append(at, i)
		}
	}
	return at
}

func dateConditions(c, old *certificatesv1.CertificateSigningRequest) {
	now := metav1.Now()
	for i := range c.Status.Conditions {
		cond := &c.Status.Conditions[i]
		if cond.LastUpdateTime.IsZero() {
			cond.LastUpdateTime = now
		}
		if !cond.LastTransitionTime.IsZero() {
			continue
		}
		cond.LastTransitionTime = now
		for _, had := range old.Status.Conditions {
			if had.Type == cond.Type && had.Status == cond.Status && !had.LastTransitionTime.IsZero() {
				cond.LastTransitionTime = had.LastTransitionTime
				break
			}
		}
	}
}

func requestState(c *certificatesv1.CertificateSigningRequest) string {
	state := "Pending"
	switch {
	case len(conditionsOf(c, certificatesv1.CertificateDenied)) > 0:
		state = "Denied"
	case len(conditionsOf(c, certificatesv1.CertificateApproved)) > 0:
		state = "Approved"
	}
	if len(conditionsOf(c, certificatesv1.CertificateFailed)) > 0 {
		state += ",Failed"
	}
	if len(c.Status.Certificate) > 0 {
		state += ",Issued"
	}
	return state
}
