package validation

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const maxTrustBundle = 1 << 20

// ClusterTrustBundle validates a set of trust anchors.
func ClusterTrustBundle(b *certificatesv1.ClusterTrustBundle) field.ErrorList {
	return trustBundle(b, false).list
}

// ClusterTrustBundleUpdate validates a change of a set; its signer stays.
func ClusterTrustBundleUpdate(b, old *certificatesv1.ClusterTrustBundle) field.ErrorList {
	p := trustBundle(b, b.Spec.TrustBundle == old.Spec.TrustBundle)
	p.add(metaUpdate(&b.ObjectMeta, &old.ObjectMeta).list...)
	p.immutable(field.NewPath("spec", "signerName"), b.Spec.SignerName, old.Spec.SignerName)
	return p.list
}

func trustBundle(b *certificatesv1.ClusterTrustBundle, stored bool) problems {
	signer := b.Spec.SignerName
	p := clusterMeta(&b.ObjectMeta, func(name string, prefix bool) []string { return bundleName(signer, name, prefix) })
	if signer != "" {
		signerName(&p, field.NewPath("spec", "signerName"), signer)
	}
	if !stored {
		trustAnchors(&p, field.NewPath("spec", "trustBundle"), b.Spec.TrustBundle)
	}
	return p
}

// bundleName demands that a signer's bundles begin with its name.
func bundleName(signer, name string, prefix bool) []string {
	if signer == "" {
		if strings.Contains(name, ":") {
			return []string{`ClusterTrustBundle without signer name must not have ":" in its name`}
		}
		return apimachinery.NameIsDNSSubdomain(name, prefix)
	}
	begin := strings.ReplaceAll(signer, "/", ":") + ":"
	rest, ok := strings.CutPrefix(name, begin)
	if !ok {
		return []string{fmt.Sprintf("ClusterTrustBundle for signerName %s must be named with prefix %s", signer, begin)}
	}
	return apimachinery.NameIsDNSSubdomain(rest, prefix)
}

// trustAnchors demands certificates of authorities in PEM, each once.
func trustAnchors(p *problems, at *field.Path, text string) {
	if len(text) > maxTrustBundle {
		p.add(field.TooLong(at, "", maxTrustBundle))
		return
	}
	seen, before, n := map[string][]int{}, len(p.list), 0
	var order []string
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		if complaint := badAnchor(block); complaint != "" {
			p.invalid(at, "<value omitted>", fmt.Sprintf("entry %d %s", n, complaint))
		} else {
			if seen[string(block.Bytes)] == nil {
				order = append(order, string(block.Bytes))
			}
			seen[string(block.Bytes)] = append(seen[string(block.Bytes)], n)
		}
		n++
	}
	if len(p.list) > before {
		return
	}
	if len(seen) == 0 {
		p.invalid(at, "<value omitted>", "at least one trust anchor must be provided")
	}
	for _, anchor := range order {
		if len(seen[anchor]) > 1 {
			p.invalid(at, "<value omitted>", fmt.Sprintf("duplicate trust anchor (indices %v)", seen[anchor]))
		}
	}
}

func badAnchor(block *pem.Block) string {
	if block.Type != certificateBlock {
		return "has bad block type: " + block.Type
	}
	if len(block.Headers) != 0 {
		return "has PEM block headers"
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	switch {
	case err != nil:
		return "does not parse as X.509"
	case !cert.IsCA:
		return "does not have the CA bit set"
	case !cert.BasicConstraintsValid:
		return "has invalid basic constraints"
	default:
		return ""
	}
}
