package authn

import (
	"crypto/sha256"
	"crypto/x509"
	"net/http"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	authx509 "k8s.io/apiserver/pkg/authentication/request/x509"
)

const (
	certsKept = 1024
	certFor   = time.Minute
)

// Certificates authenticates by client certificates signed by roots. A chain
// is verified once a minute, not once a request.
func Certificates(roots *x509.CertPool) authenticator.Request {
	opts := authx509.DefaultVerifyOptions()
	opts.Roots = roots
	return &certificates{next: authx509.New(opts, authx509.CommonNameUserConversion), known: map[[sha256.Size]byte]verified{}}
}

type verified struct {
	response *authenticator.Response
	until    time.Time
}

type certificates struct {
	next authenticator.Request

	mu    sync.Mutex // guards the field below
	known map[[sha256.Size]byte]verified
}

// AuthenticateRequest implements authenticator.Request.
func (c *certificates) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, false, nil
	}
	// Intermediates are part of the proof.
	h := sha256.New()
	for _, cert := range r.TLS.PeerCertificates {
		h.Write(cert.Raw)
	}
	var key [sha256.Size]byte
	h.Sum(key[:0])
	now := time.Now()
	c.mu.Lock()
	v, ok := c.known[key]
	c.mu.Unlock()
	if ok && now.Before(v.until) {
		return v.response, true, nil
	}
	response, ok, err := c.next.AuthenticateRequest(r)
	if err != nil || !ok {
		return response, ok, err
	}
	until := now.Add(certFor)
	if end := r.TLS.PeerCertificates[0].NotAfter; end.Before(until) {
		until = end
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= certsKept {
		clear(c.known)
	}
	c.known[key] = verified{response: response, until: until}
	return response, true, nil
}
