package authn

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// Key makes and checks service account tokens (ES256).
type Key struct {
	id     string
	key    *ecdsa.PrivateKey
	signer jose.Signer
}

// NewKey prepares a key. Its ID is the hash of its public half, as upstream
// names keys.
func NewKey(key *ecdsa.PrivateKey) (*Key, error) {
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("service account key: %w", err)
	}
	sum := sha256.Sum256(der)
	id := base64.RawURLEncoding.EncodeToString(sum[:])
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: id}}, nil)
	if err != nil {
		return nil, fmt.Errorf("service account key: %w", err)
	}
	return &Key{id: id, key: key, signer: signer}, nil
}

// ID is what tokens and key sets call the key.
func (k *Key) ID() string { return k.id }

// Private is the key itself.
func (k *Key) Private() *ecdsa.PrivateKey { return k.key }

func (k *Key) public() jose.JSONWebKey {
	return jose.JSONWebKey{Key: &k.key.PublicKey, KeyID: k.id, Algorithm: string(jose.ES256), Use: "sig"}
}
