// Package identity makes and keeps what a mesh proves itself with: its
// certificate authorities, the certificates of peers, servers and clients,
// the keys of service accounts, of sealing and of gossip, and join tokens.
//
// Its invariant: a private key exists only in memory, in 0600 files under a
// 0700 directory, and in the answer to a joiner that presented a valid token;
// and one authority's signature is worth nothing where another is asked for.
package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"skein.dev/skein/api/peerid"
)

// Authority names one of the mesh's certificate authorities. They are
// separate so that, say, a certificate for a user can never open a raft link.
type Authority string

// The authorities.
const (
	Peers      Authority = "peers"       // peers among themselves
	Clients    Authority = "clients"     // users and components towards the API and kubelets
	Serving    Authority = "serving"     // API servers and kubelets towards their clients; tokens pin it
	FrontProxy Authority = "front-proxy" // API servers towards aggregated API servers
)

// Authorities returns all of them, in a fixed order.
func Authorities() []Authority { return []Authority{Peers, Clients, Serving, FrontProxy} }

// CA is an authority's certificate and key.
type CA struct {
	Cert *x509.Certificate
	Key  *ecdsa.PrivateKey
}

// Cluster identifies a mesh. Incarnation changes when the mesh was recovered
// or restored: peers of different incarnations refuse each other.
type Cluster struct {
	ID          string `json:"id"`
	Incarnation string `json:"incarnation"`
}

// SealingKey is one AES-256 key of the keyring that secrets are sealed with.
type SealingKey struct {
	ID  string `json:"id"`
	Key []byte `json:"key"`
}

// Keyring is everything secret that all full peers share. It is immutable
// once made; callers must not change what they read from it.
type Keyring struct {
	Cluster Cluster
	CAs     map[Authority]CA
	// ServiceAccount signs service account tokens (ES256).
	ServiceAccount *ecdsa.PrivateKey
	// Sealing keys open what they sealed; the first one seals.
	Sealing []SealingKey
	// Gossip keys are 32 bytes; the first one encrypts, all decrypt.
	Gossip [][]byte
}

const (
	caLife   = 10 * 365 * 24 * time.Hour
	certLife = 365 * 24 * time.Hour
	// backdate lets machines whose clocks run a little behind accept a new certificate.
	backdate = 10 * time.Minute
)

// NewKeyring makes the keyring of a new mesh: the first peer's first act.
func NewKeyring(now time.Time) (*Keyring, error) {
	k := &Keyring{
		Cluster: Cluster{ID: randomHex(16), Incarnation: randomHex(4)},
		CAs:     make(map[Authority]CA),
		Sealing: []SealingKey{{ID: randomHex(4), Key: randomBytes(32)}},
		Gossip:  [][]byte{randomBytes(32)},
	}
	for _, a := range Authorities() {
		ca, err := newCA(a, k.Cluster.ID, now)
		if err != nil {
			return nil, err
		}
		k.CAs[a] = ca
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	k.ServiceAccount = key
	return k, nil
}

// Pool returns a new pool that trusts the authority a alone.
func (k *Keyring) Pool(a Authority) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(k.CAs[a].Cert)
	return p
}

// CAPEM is the certificate of the authority a: a kubeconfig's, or the
// kube-root-ca.crt of pods, for which a is Serving.
func (k *Keyring) CAPEM(a Authority) []byte { return certPEM(k.CAs[a].Cert.Raw) }

// CAHash is what join tokens carry: the hash of the key of the serving authority.
func (k *Keyring) CAHash() string { return peerid.Fingerprint(k.CAs[Serving].Cert) }

// check reports what is missing in a keyring that came from outside.
func (k *Keyring) check() error {
	if k.Cluster.ID == "" {
		return errors.New("keyring: cluster id is missing")
	}
	for _, a := range Authorities() {
		ca, ok := k.CAs[a]
		if !ok || ca.Key == nil {
			return fmt.Errorf("keyring: authority %s is missing", a)
		}
		if !ca.Cert.IsCA || !ca.Key.PublicKey.Equal(ca.Cert.PublicKey) {
			return fmt.Errorf("keyring: certificate and key of authority %s do not belong together", a)
		}
	}
	if k.ServiceAccount == nil || len(k.Sealing) == 0 || len(k.Gossip) == 0 {
		return errors.New("keyring: service account, sealing or gossip key is missing")
	}
	for _, g := range k.Gossip {
		if len(g) != 32 {
			return fmt.Errorf("keyring: gossip key has %d bytes, want 32", len(g))
		}
	}
	for _, s := range k.Sealing {
		if len(s.Key) != 32 {
			return fmt.Errorf("keyring: sealing key %s has %d bytes, want 32", s.ID, len(s.Key))
		}
	}
	return nil
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return key, nil
}

// randomBytes cannot fail: crypto/rand ends the program rather than return weak bytes.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func randomHex(n int) string { return hex.EncodeToString(randomBytes(n)) }
