package volume

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
)

// Certificates reads trust bundles and asks for pods' certificates. NotFound
// is apimachinery's.
type Certificates interface {
	TrustBundle(ctx context.Context, name string) (*certificatesv1.ClusterTrustBundle, error)
	TrustBundles(ctx context.Context) ([]certificatesv1.ClusterTrustBundle, error)
	// Request asks a signer for a certificate of the key that signed request,
	// a PKCS#10 of no content, and returns the request's name.
	Request(ctx context.Context, pod *corev1.Pod, p *corev1.PodCertificateProjection, request []byte) (string, error)
	// Requested returns what has become of a request.
	Requested(ctx context.Context, namespace, name string) (*certificatesv1.PodCertificateRequest, error)
}

// How long a signer is waited for while a pod cannot start without it, how
// often it is looked, and after what time a request that is not there any more
// is given up.
const (
	signerWait    = 5 * time.Second
	signerLook    = 200 * time.Millisecond
	signerAbandon = 10 * time.Minute
	// refreshSpread keeps pods that began together from renewing together.
	refreshSpread = 5 * time.Minute
	// refreshLook is how often a pending renewal is looked at.
	refreshLook = 15 * time.Second
)

// certKey names one certificate of a pod: the source at index of a volume.
type certKey struct {
	uid    types.UID
	volume string
	index  int
}

// credential is a private key with its certificates, both PEM.
type credential struct {
	key, chain []byte
	renew      time.Time
}

// ask is a request that has not been answered.
type ask struct {
	key     []byte
	name    string
	abandon time.Time
}

// issue is what is known of one certificate: what serves now, what has been
// asked for, and why there will be none.
type issue struct {
	have    *credential
	pending *ask
	refused error
}

// settled: there is nothing to ask for, as the signer has refused for good or
// what it gave is good for a while.
func (i *issue) settled(now time.Time) bool {
	return i.refused != nil || i.have != nil && now.Before(i.have.renew)
}

// certificate returns a pod's key and certificates (KEP-4317) and when to call
// again. The key never leaves the node.
func (s *Set) certificate(ctx context.Context, pod *corev1.Pod, volume string, index int, p *corev1.PodCertificateProjection) (*credential, time.Time, error) {
	k := certKey{pod.UID, volume, index}
	s.mu.Lock()
	state := s.issues[k] // one pod's volumes are made by one goroutine at a time
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.issues[k] = state
	}()
	for end := time.Now().Add(signerWait); ; {
		if err := s.advance(ctx, pod, p, &state); err != nil && state.have == nil {
			return nil, time.Time{}, err
		}
		switch {
		case state.refused != nil && state.have == nil:
			return nil, time.Time{}, state.refused
		case state.have != nil && (state.pending != nil || !time.Now().Before(state.have.renew)):
			return state.have, time.Now().Add(refreshLook), nil
		case state.have != nil:
			return state.have, state.have.renew, nil
		case time.Now().After(end):
			return nil, time.Time{}, fmt.Errorf("signer %s has not answered request %s yet", p.SignerName, state.pending.name)
		}
		t := time.NewTimer(signerLook)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, time.Time{}, ctx.Err()
		case <-t.C:
		}
	}
}

// advance asks for a certificate when one is due, and takes the answer.
func (s *Set) advance(ctx context.Context, pod *corev1.Pod, p *corev1.PodCertificateProjection, state *issue) error {
	now := time.Now()
	if state.pending == nil {
		if state.settled(now) {
			return nil
		}
		key, request, err := newKey(p.KeyType)
		if err != nil {
			return err
		}
		name, err := s.cfg.Certificates.Request(ctx, pod, p, request)
		if err != nil {
			return fmt.Errorf("request certificate: %w", err)
		}
		state.pending = &ask{key: key, name: name, abandon: now.Add(signerAbandon)}
		return nil
	}
	r, err := s.cfg.Certificates.Requested(ctx, pod.Namespace, state.pending.name)
	if apierrors.IsNotFound(err) && now.After(state.pending.abandon) {
		state.pending = nil // somebody has deleted it: ask anew
		return nil
	}
	if err != nil {
		if apierrors.IsNotFound(err) {
			return nil // the replica has not seen it yet
		}
		return fmt.Errorf("read certificate request: %w", err)
	}
	state.answer(r, now)
	return nil
}

// answer takes a request's answer, if it has one.
func (i *issue) answer(r *certificatesv1.PodCertificateRequest, now time.Time) {
	if len(r.Status.Conditions) == 0 {
		return
	}
	c := &r.Status.Conditions[0] // of these three a request gets one, once
	switch c.Type {
	case certificatesv1.PodCertificateRequestConditionTypeIssued:
		i.have = &credential{key: i.pending.key, chain: certificatesOnly([]byte(r.Status.CertificateChain)), renew: now.Add(24 * time.Hour)}
		if t := r.Status.BeginRefreshAt; t != nil {
			i.have.renew = t.Add(mathrand.N(refreshSpread))
		}
		i.pending = nil
	case certificatesv1.PodCertificateRequestConditionTypeDenied:
		i.refused, i.pending = fmt.Errorf("PodCertificateRequest %s/%s was denied, reason=%q, message=%q", r.Namespace, r.Name, c.Reason, c.Message), nil
	case certificatesv1.PodCertificateRequestConditionTypeFailed:
		i.refused, i.pending = fmt.Errorf("PodCertificateRequest %s/%s failed, reason=%q, message=%q", r.Namespace, r.Name, c.Reason, c.Message), nil
	}
}

// certificatesOnly drops everything but the certificates of a PEM file.
func certificatesOnly(in []byte) []byte {
	var out []byte
	for {
		var b *pem.Block
		if b, in = pem.Decode(in); b == nil {
			return out
		}
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.Bytes})...)
	}
}

// newKey makes a private key of a kind, and the proof that it is had.
func newKey(kind string) (keyPEM, request []byte, err error) {
	var key crypto.Signer
	switch kind {
	case "RSA3072":
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	case "RSA4096":
		key, err = rsa.GenerateKey(rand.Reader, 4096)
	case "ECDSAP256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ECDSAP384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ECDSAP521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ED25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = errors.New("unknown key type")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("make key of type %q: %w", kind, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}
	request, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("sign certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), request, nil
}

// certificateFiles are the files that a projection asks for.
func (s *Set) certificateFiles(ctx context.Context, pod *corev1.Pod, volume string, index int, p *corev1.PodCertificateProjection, m os.FileMode) (files, time.Time, error) {
	c, again, err := s.certificate(ctx, pod, volume, index, p)
	if err != nil {
		return nil, time.Time{}, err
	}
	out := files{}
	for path, data := range map[string][]byte{
		p.CredentialBundlePath: slices.Concat(c.key, c.chain), p.KeyPath: c.key, p.CertificateChainPath: c.chain,
	} {
		if path != "" {
			out[path] = tokenFile(pod, data, m)
		}
	}
	return out, again, nil
}
