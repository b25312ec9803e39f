package validation

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	minRequestSeconds = 600
	legacySigner      = "kubernetes.io/legacy-unknown"
	certificateBlock  = "CERTIFICATE"
)

// anyName is the rule of names about which only metadata's own rules say something.
func anyName(string, bool) []string { return nil }

// requestCheck is what a request for a certificate is held against; an older
// one may have had what is refused today.
type requestCheck struct {
	*problems

	approves, signs                                                             bool
	bothDecisions, legacy, repeats, untyped, anyCertificate, anyUsage, twoUsage bool
}

func checkRequest(p *problems, c, old *certificatesv1.CertificateSigningRequest) *requestCheck {
	r := &requestCheck{problems: p}
	if old == nil {
		return r
	}
	q := func() *requestCheck { return &requestCheck{problems: &problems{}} }
	r.bothDecisions = len(decisions(old, certificatesv1.CertificateApproved)) > 0 && len(decisions(old, certificatesv1.CertificateDenied)) > 0
	r.legacy = old.Spec.SignerName == legacySigner
	r.anyCertificate = bytes.Equal(c.Status.Certificate, old.Status.Certificate) || certificates(old.Status.Certificate) != nil
	seen := map[certificatesv1.RequestConditionType]bool{}
	for _, cond := range old.Status.Conditions {
		r.repeats = r.repeats || seen[cond.Type]
		r.untyped = r.untyped || cond.Type == ""
		seen[cond.Type] = true
	}
	unknown, twice := q(), q()
	unknown.twoUsage, twice.anyUsage = true, true
	unknown.usages(field.NewPath("usages"), old.Spec.Usages)
	twice.usages(field.NewPath("usages"), old.Spec.Usages)
	r.anyUsage, r.twoUsage = len(unknown.list) > 0, len(twice.list) > 0
	return r
}

// CertificateSigningRequest validates a new request.
func CertificateSigningRequest(c *certificatesv1.CertificateSigningRequest) field.ErrorList {
	p := clusterMeta(&c.ObjectMeta, anyName)
	checkRequest(&p, c, nil).check(c)
	return p.list
}

// CertificateSigningRequestUpdate validates a change that neither approves nor
// signs.
func CertificateSigningRequestUpdate(c, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
	return requestUpdate(c, old, false, false)
}

// CertificateSigningRequestApproval validates an approval or a denial.
func CertificateSigningRequestApproval(c, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
	return requestUpdate(c, old, true, false)
}

// CertificateSigningRequestStatusUpdate validates a signature.
func CertificateSigningRequestStatusUpdate(c, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
	return requestUpdate(c, old, false, true)
}

func requestUpdate(c, old *certificatesv1.CertificateSigningRequest, approves, signs bool) field.ErrorList {
	p := clusterMeta(&c.ObjectMeta, anyName)
	r := checkRequest(&p, c, old)
	r.approves, r.signs = approves, signs
	r.check(c)
	r.kept(c, old)
	p.add(metaUpdate(&c.ObjectMeta, &old.ObjectMeta).list...)
	return p.list
}

func decisions(c *certificatesv1.CertificateSigningRequest, t certificatesv1.RequestConditionType) (out []certificatesv1.CertificateSigningRequestCondition) {
	for _, cond := range c.Status.Conditions {
		if cond.Type == t {
			out = append(out, cond)
		}
	}
	return out
}

// kept demands that decisions stay, and that only who may makes them.
func (r *requestCheck) kept(c, old *certificatesv1.CertificateSigningRequest) {
	path := field.NewPath("status", "conditions")
	all := []certificatesv1.RequestConditionType{
		certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed,
	}
	for _, t := range all {
		r.forbid(path, len(decisions(c, t)) < len(decisions(old, t)), fmt.Sprintf("updates may not remove a condition of type %q", t))
	}
	for _, t := range all[:2] {
		now, had := decisions(c, t), decisions(old, t)
		switch {
		case r.approves || len(now) < len(had):
		case len(now) > len(had):
			r.forbidden(path, fmt.Sprintf("updates may not add a condition of type %q", t))
		case !equality.Semantic.DeepEqual(had, now):
			r.forbidden(path, fmt.Sprintf("updates may not modify a condition of type %q\n%v", t, diff.Diff(had, now)))
		}
	}
	at := field.NewPath("status", "certificate")
	switch {
	case bytes.Equal(c.Status.Certificate, old.Status.Certificate):
	case !r.signs:
		r.forbidden(at, "updates may not set certificate content")
	case len(old.Status.Certificate) > 0:
		r.forbidden(at, "updates may not modify existing certificate content")
	}
}

func (r *requestCheck) check(c *certificatesv1.CertificateSigningRequest) {
	path := field.NewPath("spec")
	if err := signingRequest(c.Spec.Request); err != nil {
		r.invalid(path.Child("request"), c.Spec.Request, err.Error())
	}
	if len(c.Spec.Usages) == 0 {
		r.required(path.Child("usages"), "")
	}
	r.usages(path.Child("usages"), c.Spec.Usages)
	if c.Spec.SignerName == legacySigner && !r.legacy {
		r.invalid(path.Child("signerName"), c.Spec.SignerName, "the legacy signerName is not allowed via this API version")
	} else {
		signerName(r.problems, path.Child("signerName"), c.Spec.SignerName)
	}
	if n := c.Spec.ExpirationSeconds; n != nil && *n < minRequestSeconds {
		r.invalid(path.Child("expirationSeconds"), *n, "may not specify a duration less than 600 seconds (10 minutes)")
	}
	r.conditions(field.NewPath("status", "conditions"), c.Status.Conditions)
	if !r.anyCertificate {
		if err := certificates(c.Status.Certificate); err != nil {
			r.invalid(field.NewPath("status", "certificate"), "<certificate data>", err.Error())
		}
	}
}

func (r *requestCheck) usages(path *field.Path, list []certificatesv1.KeyUsage) {
	known := []certificatesv1.KeyUsage{
		certificatesv1.UsageAny, certificatesv1.UsageCRLSign, certificatesv1.UsageCertSign, certificatesv1.UsageClientAuth,
		certificatesv1.UsageCodeSigning, certificatesv1.UsageContentCommitment, certificatesv1.UsageDataEncipherment,
		certificatesv1.UsageDecipherOnly, certificatesv1.UsageDigitalSignature, certificatesv1.UsageEmailProtection,
		certificatesv1.UsageEncipherOnly, certificatesv1.UsageIPsecEndSystem, certificatesv1.UsageIPsecTunnel,
		certificatesv1.UsageIPsecUser, certificatesv1.UsageKeyAgreement, certificatesv1.UsageKeyEncipherment,
		certificatesv1.UsageMicrosoftSGC, certificatesv1.UsageNetscapeSGC, certificatesv1.UsageOCSPSigning,
		certificatesv1.UsageSMIME, certificatesv1.UsageServerAuth, certificatesv1.UsageSigning, certificatesv1.UsageTimestamping,
	}
	slices.Sort(known)
	seen := map[certificatesv1.KeyUsage]bool{}
	for i, usage := range list {
		if !r.anyUsage {
			oneOf(r.problems, path.Index(i), usage, known...)
		}
		if seen[usage] && !r.twoUsage {
			r.duplicate(path.Index(i), usage)
		}
		seen[usage] = true
	}
}

func (r *requestCheck) conditions(path *field.Path, list []certificatesv1.CertificateSigningRequestCondition) {
	seen := map[certificatesv1.RequestConditionType]bool{}
	for i, c := range list {
		at := path.Index(i)
		if c.Type == "" && !r.untyped {
			r.required(at.Child("type"), "")
		}
		statuses := []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown}
		decided := c.Type == certificatesv1.CertificateApproved || c.Type == certificatesv1.CertificateDenied
		if decided || c.Type == certificatesv1.CertificateFailed {
			statuses = []corev1.ConditionStatus{corev1.ConditionTrue}
		}
		requireOneOf(r.problems, at.Child("status"), c.Status, statuses...)
		other := certificatesv1.CertificateApproved
		if c.Type == other {
			other = certificatesv1.CertificateDenied
		}
		if decided && seen[other] && !r.bothDecisions {
			r.invalid(path, c.Type, "Approved and Denied conditions are mutually exclusive")
		}
		if seen[c.Type] && !r.repeats {
			r.duplicate(at.Child("type"), c.Type)
		}
		seen[c.Type] = true
	}
}

// signingRequest demands a PKCS #10 request, signed with the key it is for.
func signingRequest(data []byte) error {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return err
	}
	return request.CheckSignature()
}

// certificates demands certificates in PEM and nothing else, or nothing at all.
func certificates(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	found := false
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != certificateBlock {
			return fmt.Errorf("only CERTIFICATE PEM blocks are allowed, found %q", block.Type)
		}
		if len(block.Headers) != 0 {
			return errors.New("no PEM block headers are permitted")
		}
		certs, err := x509.ParseCertificates(block.Bytes)
		if err != nil {
			return err
		}
		if len(certs) == 0 {
			return errors.New("found CERTIFICATE PEM block containing 0 certificates")
		}
		found = true
	}
	if !found {
		return errors.New("must contain at least one CERTIFICATE PEM block")
	}
	return nil
}
