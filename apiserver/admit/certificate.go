package admit

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// signer lets only those approve or sign a certificate request who may do so
// for its signer: RBAC on the request alone would let anyone who may approve
// at all make an administrator.
func (c Config) signer(ctx context.Context, a admission.Attributes) error {
	sub := a.GetSubresource()
	if !is(a, certificatesv1.GroupName, "certificatesigningrequests", sub) || sub != "approval" && sub != "status" {
		return nil
	}
	old, ok1 := a.GetOldObject().(*certificatesv1.CertificateSigningRequest)
	csr, ok2 := a.GetObject().(*certificatesv1.CertificateSigningRequest)
	if !ok1 || !ok2 {
		return refuse(a, "expected type CertificateSigningRequest, got: %T", a.GetObject())
	}
	verb := "approve"
	if sub == "status" {
		same := bytes.Equal(old.Status.Certificate, csr.Status.Certificate) &&
			equality.Semantic.DeepEqual(old.Status.Conditions, csr.Status.Conditions)
		if same {
			return nil
		}
		verb = "sign"
	}
	if !c.maySign(ctx, a.GetUserInfo(), verb, old.Spec.SignerName) {
		return refuse(a, "user not permitted to %s requests with signerName %q", verb, old.Spec.SignerName)
	}
	return nil
}

// maySign asks for the signer by name and for all of its domain.
func (c Config) maySign(ctx context.Context, who user.Info, verb, signer string) bool {
	domain, _, _ := strings.Cut(signer, "/")
	return slices.ContainsFunc([]string{signer, domain + "/*"}, func(name string) bool {
		may, _, err := c.Authorizer.Authorize(ctx, authorizer.AttributesRecord{
			User: who, Verb: verb, APIGroup: certificatesv1.GroupName, APIVersion: "*", Resource: "signers", Name: name, ResourceRequest: true,
		})
		return err == nil && may == authorizer.DecisionAllow
	})
}

// subject refuses requests for a client certificate of the group that no role
// binds.
func subject(_ context.Context, a admission.Attributes) error {
	csr, ok := a.GetObject().(*certificatesv1.CertificateSigningRequest)
	if !ok || !is(a, certificatesv1.GroupName, "certificatesigningrequests", "") || csr.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
		return nil
	}
	request, err := parseRequest(csr.Spec.Request)
	if err != nil {
		return refuse(a, "failed to parse CSR: %w", err)
	}
	if slices.Contains(request.Subject.Organization, user.SystemPrivilegedGroup) {
		return refuse(a, "use of %s signer with %s group is not allowed", csr.Spec.SignerName, user.SystemPrivilegedGroup)
	}
	return nil
}

func parseRequest(raw []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(block.Bytes)
}
