package csr

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"time"

	authv1 "k8s.io/api/authorization/v1"
	certv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
)

// The errors of requests that a signer refuses.
var (
	errPEM      = errors.New("no PEM block of type CERTIFICATE REQUEST")
	errOrg      = errors.New("subject organization is not system:nodes")
	errName     = errors.New("subject common name does not begin with that of nodes")
	errNames    = errors.New("email and URI SANs are not allowed")
	errClient   = errors.New("subject alternative names are not allowed in a client certificate of a node")
	errNoNames  = errors.New("a DNS or IP subjectAltName is required")
	errUsages   = errors.New("usages do not match those of the signer")
	errBadOwner = errors.New("signature is not by the key of the request")
)

// Parse reads the request and checks that it is signed by its own key.
func Parse(data []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errPEM
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err //nolint:wrapcheck // its own words reach the user
	}
	if err := r.CheckSignature(); err != nil {
		return nil, errors.Join(errBadOwner, err)
	}
	return r, nil
}

// usages reports whether the request wants the purpose, with digital
// signature and possibly key encipherment, and no other.
func usages(have []certv1.KeyUsage, purpose certv1.KeyUsage) bool {
	for _, u := range have {
		if u != purpose && u != certv1.UsageDigitalSignature && u != certv1.UsageKeyEncipherment {
			return false
		}
	}
	return slices.Contains(have, purpose) && slices.Contains(have, certv1.UsageDigitalSignature)
}

// Permitted says why the signer must not sign what is asked; nil: it may.
// https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/
func Permitted(signer string, r *x509.CertificateRequest, want []certv1.KeyUsage) error {
	node := func() error {
		switch {
		case !slices.Equal(r.Subject.Organization, []string{"system:nodes"}):
			return errOrg
		case !strings.HasPrefix(r.Subject.CommonName, "system:node:"):
			return errName
		case len(r.EmailAddresses)+len(r.URIs) > 0:
			return errNames
		default:
			return nil
		}
	}
	switch signer {
	case certv1.KubeAPIServerClientSignerName:
		for _, u := range want {
			if u != certv1.UsageClientAuth && u != certv1.UsageDigitalSignature && u != certv1.UsageKeyEncipherment {
				return errUsages
			}
		}
		if !slices.Contains(want, certv1.UsageClientAuth) {
			return errUsages
		}
	case certv1.KubeAPIServerClientKubeletSignerName:
		if err := node(); err != nil {
			return err
		}
		if len(r.DNSNames)+len(r.IPAddresses) > 0 {
			return errClient
		}
		if !usages(want, certv1.UsageClientAuth) {
			return errUsages
		}
	case certv1.KubeletServingSignerName:
		if err := node(); err != nil {
			return err
		}
		if len(r.DNSNames)+len(r.IPAddresses) == 0 {
			return errNoNames
		}
		if !usages(want, certv1.UsageServerAuth) {
			return errUsages
		}
	}
	return nil
}

// decided returns whether the request was approved, and whether the decision
// or the signing has ended it.
func decided(c *certv1.CertificateSigningRequest) (approved, ended bool) {
	for _, x := range c.Status.Conditions {
		switch x.Type {
		case certv1.CertificateApproved:
			approved = true
		case certv1.CertificateDenied, certv1.CertificateFailed:
			ended = true
		}
	}
	return approved, ended
}

// Permission is the right whose owner's request is approved without people:
// a node's for a client certificate, its own or another's. Nil: people decide.
func Permission(c *certv1.CertificateSigningRequest, r *x509.CertificateRequest) []authv1.ResourceAttributes {
	if c.Spec.SignerName != certv1.KubeAPIServerClientKubeletSignerName || Permitted(c.Spec.SignerName, r, c.Spec.Usages) != nil {
		return nil
	}
	right := func(sub string) authv1.ResourceAttributes {
		return authv1.ResourceAttributes{Group: certv1.GroupName, Version: "*", Resource: "certificatesigningrequests", Subresource: sub, Verb: "create"}
	}
	if c.Spec.Username == r.Subject.CommonName {
		return []authv1.ResourceAttributes{right("selfnodeclient"), right("nodeclient")}
	}
	return []authv1.ResourceAttributes{right("nodeclient")}
}

// How long requests are kept, by what became of them.
const (
	keepIssued  = time.Hour
	keepDenied  = time.Hour
	keepPending = 24 * time.Hour
)

// Expires is when a request may be forgotten.
func Expires(c *certv1.CertificateSigningRequest) time.Time {
	t := c.CreationTimestamp.Add(keepPending)
	earlier := func(x time.Time) {
		if x.Before(t) {
			t = x
		}
	}
	for _, x := range c.Status.Conditions {
		if x.Status != corev1.ConditionTrue && x.Status != "" {
			continue
		}
		switch {
		case x.Type == certv1.CertificateApproved && len(c.Status.Certificate) > 0:
			earlier(x.LastUpdateTime.Add(keepIssued))
		case x.Type == certv1.CertificateDenied, x.Type == certv1.CertificateFailed:
			earlier(x.LastUpdateTime.Add(keepDenied))
		}
	}
	if block, _ := pem.Decode(c.Status.Certificate); block != nil {
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			earlier(cert.NotAfter)
		}
	}
	return t
}
