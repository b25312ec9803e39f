package validation

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	minCertificateSeconds  = 60 * 60
	maxCertificateSeconds  = 91 * 24 * 60 * 60
	kubeCertificateSeconds = 24 * 60 * 60
)

// signerName demands a domain and a path that can hold a namespaced name.
func signerName(p *problems, path *field.Path, name string) {
	if name == "" {
		p.required(path, "")
		return
	}
	domain, rest, ok := strings.Cut(name, "/")
	if !ok || strings.Contains(rest, "/") {
		p.invalid(path, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")
		return
	}
	const maxDomain = validation.DNS1123SubdomainMaxLength
	if len(domain) > maxDomain {
		p.add(field.TooLong(path, "", maxDomain))
	}
	segments := func(part string, rule func(string) []string) int {
		labels := strings.Split(part, ".")
		for _, label := range labels {
			complaints := rule(label)
			for _, c := range complaints {
				p.invalid(path, part, fmt.Sprintf("validating label %q: %s", label, c))
			}
			if len(complaints) > 0 {
				break
			}
		}
		return len(labels)
	}
	if segments(domain, validation.IsDNS1123Label) < 2 {
		p.invalid(path, domain, "should be a domain with at least two segments separated by dots")
	}
	segments(rest, validation.IsDNS1123Subdomain)
	if limit := 2*maxDomain + validation.DNS1123LabelMaxLength + 2; len(name) > limit {
		p.add(field.TooLong(path, "", limit))
	}
}

// trustBundleName validates the name of a bundle, which begins with its
// signer's name if it has one.
func trustBundleName(name string) []string {
	if at := strings.LastIndex(name, ":"); at >= 0 {
		name = name[at+1:]
	}
	return apimachinery.NameIsDNSSubdomain(name, false)
}

func (c *podCheck) checkPodCertificate(at *field.Path, p *corev1.PodCertificateProjection, take func(string)) {
	signerName(c.problems, at.Child("signerName"), p.SignerName)
	oneOf(c.problems, at.Child("keyType"), p.KeyType, "RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519")
	if n := p.MaxExpirationSeconds; n != nil {
		limit := longestLife(p.SignerName)
		const field = "maxExpirationSeconds"
		if *n < minCertificateSeconds {
			c.invalid(at.Child(field), *n, fmt.Sprintf("if provided, maxExpirationSeconds must be >= %d", minCertificateSeconds))
		}
		if *n > limit {
			c.invalid(at.Child(field), *n, fmt.Sprintf("if provided, maxExpirationSeconds must be <= %d", limit))
		}
	}
	if p.UserAnnotations != nil {
		userAnnotations(c.problems, at.Child("userAnnotations"), p.UserAnnotations)
	}
	file := func(name, value string) bool {
		if value == "" {
			return false
		}
		c.unreserved(at.Child(name), value)
		take(value)
		return true
	}
	bundle := file("credentialBundlePath", p.CredentialBundlePath)
	key := file("keyPath", p.KeyPath)
	if chain := file("certificateChainPath", p.CertificateChainPath); !bundle && !key && !chain {
		c.required(at, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath")
	}
}
