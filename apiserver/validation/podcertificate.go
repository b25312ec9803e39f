package validation

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/mail"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxStubRequest      = 10 << 10
	maxCertificateChain = 100 << 10
	maxUID              = 128
	// clockLeeway is how far from now a new certificate may begin.
	clockLeeway = 5 * time.Minute
	// refreshMargin lies between both ends of a certificate's life and the
	// time at which it is to be renewed.
	refreshMargin = 10 * time.Minute
)

// PodCertificateRequest validates a new request for a pod's certificate.
func PodCertificateRequest(r *certificatesv1.PodCertificateRequest) field.ErrorList {
	p := meta(&r.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	path, s := field.NewPath("spec"), &r.Spec
	signerName(&p, path.Child("signerName"), s.SignerName)
	if s.UnverifiedUserAnnotations != nil {
		userAnnotations(&p, path.Child("unverifiedUserAnnotations"), s.UnverifiedUserAnnotations)
	}
	p.name(path.Child("podName"), s.PodName, apimachinery.NameIsDNSSubdomain)
	givenUID(&p, path.Child("podUID"), s.PodUID)
	p.name(path.Child("serviceAccountName"), s.ServiceAccountName, apimachinery.ValidateServiceAccountName)
	givenUID(&p, path.Child("serviceAccountUID"), s.ServiceAccountUID)
	p.name(path.Child("nodeName"), string(s.NodeName), apimachinery.NameIsDNSSubdomain)
	givenUID(&p, path.Child("nodeUID"), s.NodeUID)
	life := path.Child("maxExpirationSeconds")
	if s.MaxExpirationSeconds == nil {
		p.required(life, "must be set")
		return p.list
	}
	if n, limit := *s.MaxExpirationSeconds, longestLife(s.SignerName); n < minCertificateSeconds || n > limit {
		p.invalid(life, n, fmt.Sprintf("must be in the range [%d, %d]", minCertificateSeconds, limit))
	}
	if len(s.StubPKCS10Request) == 0 {
		p.add(field.Invalid(path, field.OmitValueType{}, "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set"))
		return p.list
	}
	stubRequest(&p, path.Child("stubPKCS10Request"), s.StubPKCS10Request)
	return p.list
}

func givenUID(p *problems, path *field.Path, uid types.UID) {
	if uid == "" {
		p.invalid(path, uid, "must not be empty")
	}
	if len(uid) > maxUID {
		p.add(field.TooLong(path, uid, maxUID))
	}
}

// userAnnotations demands that each key name the domain that defines it.
func userAnnotations(p *problems, path *field.Path, all map[string]string) {
	for _, key := range sorted(all) {
		p.add(validation.IsDomainPrefixedKey(path, strings.ToLower(key))...)
	}
	if apimachinery.ValidateAnnotationsSize(all) != nil {
		p.add(field.TooLong(path, "", apimachinery.TotalAnnotationSizeLimitB))
	}
}

// longestLife is what Kubernetes' own signers and all others may give.
func longestLife(signer string) int32 {
	host, _, _ := strings.Cut(signer, "/")
	if host == "kubernetes.io" || strings.HasSuffix(host, ".kubernetes.io") {
		return kubeCertificateSeconds
	}
	return maxCertificateSeconds
}

// stubRequest demands a request that proves possession of a key of a good kind.
func stubRequest(p *problems, path *field.Path, der []byte) {
	if len(der) > maxStubRequest {
		p.add(field.TooLong(path, der, maxStubRequest))
		return
	}
	omitted := field.OmitValueType{}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		p.add(field.Invalid(path, omitted, "must be a valid PKCS#10 CSR"))
		return
	}
	switch key := request.PublicKey.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() && key.Curve != elliptic.P521() {
			p.invalid(path, "curve "+key.Curve.Params().Name, "elliptic public keys must use curve P256, P384, or P521")
			return
		}
	case *rsa.PublicKey:
		if bits := key.Size() * 8; bits != 3072 && bits != 4096 {
			p.invalid(path, fmt.Sprintf("%d-bit modulus", bits), "RSA keys must have modulus size 3072 or 4096")
			return
		}
	default:
		p.add(field.Invalid(path, omitted, "unknown public key type; supported types are Ed25519, ECDSA, and RSA"))
		return
	}
	if request.CheckSignature() != nil {
		p.add(field.Invalid(path, omitted, "invalid signature"))
	}
}

// PodCertificateRequestUpdate validates a change that does not answer the
// request: only metadata may change.
func PodCertificateRequestUpdate(r, old *certificatesv1.PodCertificateRequest) field.ErrorList {
	p := metaUpdate(&r.ObjectMeta, &old.ObjectMeta)
	p.immutable(field.NewPath("spec"), r.Spec, old.Spec)
	return p.list
}

// answered reports whether a request has its last state.
func answered(r *certificatesv1.PodCertificateRequest, states ...string) bool {
	for _, c := range r.Status.Conditions {
		for _, state := range states {
			if c.Type == state && c.Status == metav1.ConditionTrue {
				return true
			}
		}
	}
	return false
}

// PodCertificateRequestAnswer validates a signer's answer, given at now.
func PodCertificateRequestAnswer(r, old *certificatesv1.PodCertificateRequest, now time.Time) field.ErrorList {
	const issued, denied, failed = certificatesv1.PodCertificateRequestConditionTypeIssued,
		certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionTypeFailed
	p := metaUpdate(&r.ObjectMeta, &old.ObjectMeta)
	if len(p.list) > 0 {
		return p.list
	}
	path := field.NewPath("status")
	oneAnswer(&p, path.Child("conditions"), r.Status.Conditions, issued, denied, failed)
	if len(p.list) > 0 {
		return p.list
	}
	unchanged := func(want certificatesv1.PodCertificateRequestStatus, otherwise string) {
		if !equality.Semantic.DeepEqual(r.Status, want) {
			p.add(field.Invalid(path, field.OmitValueType{}, otherwise))
		}
	}
	switch {
	case answered(old, issued, denied, failed):
		unchanged(old.Status, "immutable after PodCertificateRequest is issued, denied, or failed")
	case answered(r, denied, failed):
		unchanged(certificatesv1.PodCertificateRequestStatus{Conditions: r.Status.Conditions},
			"non-condition status fields must be empty when denying or failing the PodCertificateRequest")
	case answered(r, issued):
		p.add(issuance(r, old, now)...)
	default:
		unchanged(old.Status, `status is immutable unless transitioning to "Issued", "Denied", or "Failed"`)
	}
	return p.list
}

// oneAnswer demands at most one of the known conditions, and that it be true.
func oneAnswer(p *problems, path *field.Path, all []metav1.Condition, known ...string) {
	n := 0
	for i, c := range all {
		at := path.Child(fmt.Sprintf("[%d]", i)) // upstream's spelling
		before := len(p.list)
		oneOf(p, at.Child("type"), c.Type, known...)
		if len(p.list) > before {
			continue
		}
		if n++; n > 1 {
			p.invalid(at.Child("type"), c.Type, `There may be at most one condition with type "Issued", "Denied", or "Failed"`)
		}
		oneOf(p, at.Child("status"), c.Status, metav1.ConditionTrue)
	}
	p.add(metavalidation.ValidateConditions(all, path)...)
}

// issuance checks a certificate against its request; the first complaint
// stands for all.
func issuance(r, old *certificatesv1.PodCertificateRequest, now time.Time) field.ErrorList {
	path, s := field.NewPath("status"), &r.Status
	at := path.Child("certificateChain")
	one := func(path *field.Path, value any, detail string) field.ErrorList {
		return field.ErrorList{field.Invalid(path, value, detail)}
	}
	if len(s.CertificateChain) > maxCertificateChain {
		return field.ErrorList{field.TooLong(at, s.CertificateChain, maxCertificateChain)}
	}
	block, rest := pem.Decode([]byte(s.CertificateChain))
	if block == nil {
		return one(at, s.CertificateChain, "issued certificate chain must contain at least one certificate")
	}
	if block.Type != certificateBlock {
		return one(at, s.CertificateChain, "issued certificate chain must consist entirely of CERTIFICATE PEM blocks")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return one(at, s.CertificateChain, "leaf certificate does not parse as valid X.509")
	}
	list := leafNames(at, leaf)
	request, err := x509.ParseCertificateRequest(old.Spec.StubPKCS10Request)
	if err != nil {
		return append(list, field.Invalid(field.NewPath("spec", "stubPKCS10Request"), field.OmitValueType{}, "must be a valid PKCS#10 CSR"))
	}
	if !sameKey(request.PublicKey, leaf.PublicKey) {
		return append(list, field.Invalid(at, s.CertificateChain, "leaf certificate was not issued to the requested public key"))
	}
	if s.NotBefore == nil {
		list = append(list, field.Required(path.Child("notBefore"), "must be present and consistent with the issued certificate"))
	}
	if s.NotAfter == nil {
		list = append(list, field.Required(path.Child("notAfter"), "must be present and consistent with the issued certificate"))
	}
	if s.BeginRefreshAt == nil {
		list = append(list, field.Required(path.Child("beginRefreshAt"), "must be present and in the range [notbefore+10min, notafter-10min]"))
	}
	if len(list) > 0 {
		return list
	}
	if problem := issuedTimes(r, leaf, now); problem != nil {
		return field.ErrorList{problem}
	}
	return intermediates(at, s.CertificateChain, rest)
}

func leafNames(at *field.Path, leaf *x509.Certificate) (list field.ErrorList) {
	for _, name := range leaf.DNSNames {
		if name == "" {
			list = append(list, field.Invalid(at, name, "leaf certificate should not contain empty DNSName"))
		}
		if strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") {
			list = append(list, field.Invalid(at, name, "leaf certificate's DNSName should not start or end with '.'"))
		}
	}
	for _, address := range leaf.EmailAddresses {
		if _, err := mail.ParseAddress(address); err != nil {
			list = append(list, field.Invalid(at, address, "leaf certificate should not contain invalid EmailAddress"))
		}
	}
	return list
}

func sameKey(want, have any) bool {
	switch key := want.(type) {
	case ed25519.PublicKey:
		return key.Equal(have)
	case *ecdsa.PublicKey:
		return key.Equal(have)
	case *rsa.PublicKey:
		return key.Equal(have)
	}
	return false
}

// issuedTimes holds the times of a status against the leaf, the request and now.
func issuedTimes(r *certificatesv1.PodCertificateRequest, leaf *x509.Certificate, now time.Time) *field.Error {
	path, s := field.NewPath("status"), &r.Status
	begin, end, refresh := s.NotBefore.Time, s.NotAfter.Time, s.BeginRefreshAt.Time
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	switch {
	case !begin.Equal(leaf.NotBefore):
		return field.Invalid(path.Child("notBefore"), begin, "must be set to the NotBefore time encoded in the leaf certificate")
	case !begin.After(now.Add(-clockLeeway)) || !begin.Before(now.Add(clockLeeway)):
		return field.Invalid(path.Child("notBefore"), begin, "must be set to within 5 minutes of kube-apiserver's current time")
	case !end.Equal(leaf.NotAfter):
		return field.Invalid(path.Child("notAfter"), end, "must be set to the NotAfter time encoded in the leaf certificate")
	case life < time.Hour:
		return field.Invalid(path.Child("certificateChain"), life, "leaf certificate lifetime must be >= 1 hour")
	case life > time.Duration(deref(r.Spec.MaxExpirationSeconds))*time.Second:
		return field.Invalid(path.Child("certificateChain"), life,
			fmt.Sprintf("leaf certificate lifetime must be <= spec.maxExpirationSeconds (%v)", deref(r.Spec.MaxExpirationSeconds)))
	case refresh.Before(begin.Add(refreshMargin)):
		return field.Invalid(path.Child("beginRefreshAt"), refresh, "must be at least 10 minutes after status.notBefore")
	case refresh.After(end.Add(-refreshMargin)):
		return field.Invalid(path.Child("beginRefreshAt"), refresh, "must be at least 10 minutes before status.notAfter")
	}
	return nil
}

func intermediates(at *field.Path, chain string, rest []byte) field.ErrorList {
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != certificateBlock {
			return field.ErrorList{field.Invalid(at, chain, "issued certificate chain must consist entirely of CERTFICATE PEM blocks")}
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return field.ErrorList{field.Invalid(at, chain, "intermediate certificate does not parse as valid X.509")}
		}
	}
	return nil
}
