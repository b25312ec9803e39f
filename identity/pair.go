package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"skein.dev/skein/api/peerid"
)

// Pair is a certificate and its key, in PEM.
type Pair struct {
	Chain []byte `json:"chain"` // the leaf, then its authority
	Key   []byte `json:"key"`
}

const (
	certBlock = "CERTIFICATE"
	keyBlock  = "EC PRIVATE KEY"
	csrBlock  = "CERTIFICATE REQUEST"
)

// Leaf returns the certificate of the pair itself.
func (p Pair) Leaf() (*x509.Certificate, error) {
	certs, err := parseCerts(p.Chain)
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

// Fingerprint is the hash of the pair's key, as a Peer record holds it.
func (p Pair) Fingerprint() (string, error) {
	leaf, err := p.Leaf()
	if err != nil {
		return "", err
	}
	return peerid.Fingerprint(leaf), nil
}

// PEM is the pair as one file: chain, then key. Both tls.LoadX509KeyPair and a
// kubeconfig accept one such file for certificate and key alike, so that a
// renewal replaces both in one rename.
func (p Pair) PEM() []byte { return append(bytes.Clone(p.Chain), p.Key...) }

// ParsePair reads what [Pair.PEM] wrote and checks that key and leaf belong together.
func ParsePair(data []byte) (Pair, error) {
	var p Pair
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			break
		}
		switch b.Type {
		case certBlock:
			p.Chain = append(p.Chain, pem.EncodeToMemory(b)...)
		case keyBlock:
			p.Key = pem.EncodeToMemory(b)
		}
	}
	if len(p.Chain) == 0 || len(p.Key) == 0 {
		return Pair{}, errors.New("read certificate: certificate or key is missing")
	}
	if _, err := p.TLS(); err != nil {
		return Pair{}, err
	}
	return p, nil
}

func (c CA) pair() (Pair, error) {
	k, err := keyPEM(c.Key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Chain: certPEM(c.Cert.Raw), Key: k}, nil
}

func (p Pair) ca() (CA, error) {
	cert, err := p.Leaf()
	if err != nil {
		return CA{}, err
	}
	key, err := parseKey(p.Key)
	if err != nil {
		return CA{}, err
	}
	return CA{Cert: cert, Key: key}, nil
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: der})
}

func keyPEM(k *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), nil
}

func parseKey(data []byte) (*ecdsa.PrivateKey, error) {
	b, _ := pem.Decode(data)
	if b == nil || b.Type != keyBlock {
		return nil, errors.New("read key: no EC private key in PEM")
	}
	k, err := x509.ParseECPrivateKey(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	return k, nil
}

func parseCerts(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			break
		}
		if b.Type != certBlock {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read certificate: %w", err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("read certificate: no certificate in PEM")
	}
	return certs, nil
}
