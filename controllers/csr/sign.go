package csr

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	certv1 "k8s.io/api/certificates/v1"
)

// Authority signs.
type Authority struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// Lifetimes of certificates.
const (
	lifeDefault = 365 * 24 * time.Hour
	lifeLeast   = 10 * time.Minute
	// backdate bears clocks that are behind.
	backdate = 5 * time.Minute
)

// Sign makes the certificate that a request asks for, as PEM.
func (a *Authority) Sign(r *x509.CertificateRequest, want []certv1.KeyUsage, expiration *int32, now time.Time) ([]byte, error) {
	life := lifeDefault
	if expiration != nil {
		life = min(lifeDefault, max(lifeLeast, time.Duration(*expiration)*time.Second))
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, fmt.Errorf("draw serial number: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: r.Subject, DNSNames: r.DNSNames, IPAddresses: r.IPAddresses, EmailAddresses: r.EmailAddresses, URIs: r.URIs,
		NotBefore: now.Add(-backdate), NotAfter: now.Add(life), BasicConstraintsValid: true,
	}
	if a.Cert.NotAfter.Before(t.NotAfter) {
		t.NotAfter = a.Cert.NotAfter
	}
	for _, u := range want {
		if k, ok := keyUsage(u); ok {
			t.KeyUsage |= k
		} else if e, ok := extUsage(u); ok {
			t.ExtKeyUsage = append(t.ExtKeyUsage, e)
		} else {
			return nil, fmt.Errorf("%w: %q", errUsages, u)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.Cert, r.PublicKey, a.Key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

func keyUsage(u certv1.KeyUsage) (x509.KeyUsage, bool) {
	k, ok := map[certv1.KeyUsage]x509.KeyUsage{
		certv1.UsageSigning: x509.KeyUsageDigitalSignature, certv1.UsageDigitalSignature: x509.KeyUsageDigitalSignature,
		certv1.UsageContentCommitment: x509.KeyUsageContentCommitment, certv1.UsageKeyEncipherment: x509.KeyUsageKeyEncipherment,
		certv1.UsageKeyAgreement: x509.KeyUsageKeyAgreement, certv1.UsageDataEncipherment: x509.KeyUsageDataEncipherment,
		certv1.UsageEncipherOnly: x509.KeyUsageEncipherOnly, certv1.UsageDecipherOnly: x509.KeyUsageDecipherOnly,
	}[u]
	return k, ok // certificates that sign others are never issued
}

func extUsage(u certv1.KeyUsage) (x509.ExtKeyUsage, bool) {
	e, ok := map[certv1.KeyUsage]x509.ExtKeyUsage{
		certv1.UsageAny: x509.ExtKeyUsageAny, certv1.UsageServerAuth: x509.ExtKeyUsageServerAuth, certv1.UsageClientAuth: x509.ExtKeyUsageClientAuth,
		certv1.UsageCodeSigning: x509.ExtKeyUsageCodeSigning, certv1.UsageEmailProtection: x509.ExtKeyUsageEmailProtection,
		certv1.UsageTimestamping: x509.ExtKeyUsageTimeStamping, certv1.UsageOCSPSigning: x509.ExtKeyUsageOCSPSigning,
	}[u]
	return e, ok
}
