package identity

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/role"
)

// JoinPath is where every peer's API answers joiners: POST a JoinRequest,
// get a JoinReply, or a JoinError with a status that is not 200.
const JoinPath = "/mesh/v1/join"

// JoinRequest is what a joiner sends, over a connection whose server it has
// checked against the hash in its token.
type JoinRequest struct {
	Token     string          `json:"token"`
	Name      member.Name     `json:"name"`
	ServerID  member.ServerID `json:"serverID"`
	Addresses []netip.Addr    `json:"addresses"`
	Port      int32           `json:"port"`
	Zone      string          `json:"zone,omitempty"`
	Version   string          `json:"version"`
	// APIOnly and Declines go into the peer's record.
	APIOnly  bool        `json:"apiOnly,omitempty"`
	Declines []role.Name `json:"declines,omitempty"`
	// Requests are certificate requests in PEM, one for each of JoinUses.
	Requests map[Use][]byte `json:"requests"`
}

// JoinReply is the answer to a joiner whose token was accepted.
type JoinReply struct {
	Bundle Bundle `json:"bundle"`
}

// JoinError is the answer to a joiner that was refused.
type JoinError struct {
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Bundle is what a joining full peer receives. It holds every secret of the
// mesh: it travels only inside TLS, to a holder of a valid token.
type Bundle struct {
	Cluster        Cluster            `json:"cluster"`
	CAs            map[Authority]Pair `json:"cas"`
	ServiceAccount []byte             `json:"serviceAccount"` // PEM
	Sealing        []SealingKey       `json:"sealing"`
	Gossip         [][]byte           `json:"gossip"`
	// Certificates are the signed chains for the requests.
	Certificates map[Use][]byte `json:"certificates"`
	// Peers are those the joiner can reach at first.
	Peers []PeerAddress `json:"peers"`
	// Settings are the cluster-wide settings the joiner must know before it
	// has a replica (service and pod ranges, the domain).
	Settings map[string]string `json:"settings,omitempty"`
}

// PeerAddress says where a peer is and which key it has.
type PeerAddress struct {
	Name        member.Name     `json:"name"`
	ServerID    member.ServerID `json:"serverID"`
	Address     string          `json:"address"` // host:port
	Fingerprint string          `json:"fingerprint"`
}

// Requests makes a key and a certificate request for each of JoinUses. The
// keys stay with the joiner; see [Bundle.Pairs].
func Requests(name member.Name) (keys, requests map[Use][]byte, err error) {
	keys, requests = make(map[Use][]byte), make(map[Use][]byte)
	for _, use := range JoinUses() {
		key, err := newKey()
		if err != nil {
			return nil, nil, err
		}
		t := &x509.CertificateRequest{Subject: pkix.Name{CommonName: string(name)}}
		der, err := x509.CreateCertificateRequest(rand.Reader, t, key)
		if err != nil {
			return nil, nil, fmt.Errorf("make certificate request: %w", err)
		}
		if keys[use], err = keyPEM(key); err != nil {
			return nil, nil, err
		}
		requests[use] = pem.EncodeToMemory(&pem.Block{Type: csrBlock, Bytes: der})
	}
	return keys, requests, nil
}

// SignJoin signs a joiner's requests. Of each request only the key counts,
// and only after its holder has proven to have it: what the certificate says
// comes from m. Nothing is signed unless every request is in order.
func (k *Keyring) SignJoin(m Machine, requests map[Use][]byte, now time.Time) (map[Use][]byte, error) {
	pubs := make(map[Use]*ecdsa.PublicKey)
	for use, data := range requests {
		if !slices.Contains(JoinUses(), use) {
			return nil, fmt.Errorf("certificate request %q: joiners may not ask for it", use)
		}
		pub, err := requestKey(data)
		if err != nil {
			return nil, fmt.Errorf("certificate request %q: %w", use, err)
		}
		pubs[use] = pub
	}
	if pubs[UsePeer] == nil {
		return nil, errors.New("certificate request for the peer certificate is missing")
	}
	chains := make(map[Use][]byte)
	for use, pub := range pubs {
		a, t, err := template(use, m)
		if err != nil {
			return nil, err
		}
		if chains[use], err = k.sign(a, t, pub, now); err != nil {
			return nil, err
		}
	}
	return chains, nil
}

func requestKey(data []byte) (*ecdsa.PublicKey, error) {
	b, _ := pem.Decode(data)
	if b == nil || b.Type != csrBlock {
		return nil, errors.New("not a certificate request in PEM")
	}
	req, err := x509.ParseCertificateRequest(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	if err := req.CheckSignature(); err != nil {
		return nil, fmt.Errorf("check signature: %w", err)
	}
	pub, ok := req.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve.Params().BitSize != 256 {
		return nil, errors.New("key is not ECDSA P-256")
	}
	return pub, nil
}

// Bundle packs the keyring for a joiner; the caller adds Certificates, Peers
// and Settings.
func (k *Keyring) Bundle() (Bundle, error) {
	b := Bundle{Cluster: k.Cluster, CAs: make(map[Authority]Pair), Sealing: k.Sealing, Gossip: k.Gossip}
	for a, ca := range k.CAs {
		p, err := ca.pair()
		if err != nil {
			return Bundle{}, err
		}
		b.CAs[a] = p
	}
	var err error
	b.ServiceAccount, err = keyPEM(k.ServiceAccount)
	return b, err
}

// Keyring unpacks b's secrets and checks that they are whole.
func (b Bundle) Keyring() (*Keyring, error) {
	k := &Keyring{Cluster: b.Cluster, CAs: make(map[Authority]CA), Sealing: b.Sealing, Gossip: b.Gossip}
	for a, p := range b.CAs {
		ca, err := p.ca()
		if err != nil {
			return nil, fmt.Errorf("authority %s: %w", a, err)
		}
		k.CAs[a] = ca
	}
	var err error
	if k.ServiceAccount, err = parseKey(b.ServiceAccount); err != nil {
		return nil, fmt.Errorf("service account: %w", err)
	}
	return k, k.check()
}

// Pairs joins the signed chains with the keys that [Requests] made.
func (b Bundle) Pairs(keys map[Use][]byte) (map[Use]Pair, error) {
	pairs := make(map[Use]Pair)
	for use, chain := range b.Certificates {
		p := Pair{Chain: chain, Key: keys[use]}
		if _, err := p.TLS(); err != nil {
			return nil, fmt.Errorf("certificate %s: %w", use, err)
		}
		pairs[use] = p
	}
	if _, ok := pairs[UsePeer]; !ok {
		return nil, errors.New("the reply holds no peer certificate")
	}
	return pairs, nil
}
