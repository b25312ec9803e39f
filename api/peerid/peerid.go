// Package peerid is the contract between those who issue peer certificates
// and those who read them: how a certificate names a peer and how a key is
// told by its hash.
//
// Its invariant: a server id read from a certificate is exactly the one the
// certificate was issued for, and a hash is of the key alone, so it survives
// the renewal of the certificate around the key.
package peerid

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"

	"skein.dev/skein/api/member"
)

const (
	scheme = "skein"
	host   = "peer"
)

// ErrNoServerID is wrapped by the errors of ServerID.
var ErrNoServerID = errors.New("certificate names no peer")

// URI is the subject alternative name of the certificate of the peer with the
// server id: skein://peer/<id>.
func URI(id member.ServerID) *url.URL {
	return &url.URL{Scheme: scheme, Host: host, Path: "/" + string(id)}
}

// ServerID returns the server id that cert was issued for. A certificate with
// none, or with more than one, names no peer.
func ServerID(cert *x509.Certificate) (member.ServerID, error) {
	var found member.ServerID
	for _, u := range cert.URIs {
		if u.Scheme != scheme || u.Host != host || len(u.Path) < 2 {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("%w: it names several", ErrNoServerID)
		}
		found = member.ServerID(u.Path[1:])
	}
	if found == "" {
		return "", fmt.Errorf("%w: no URI %s://%s/<id> in %q", ErrNoServerID, scheme, host, cert.Subject)
	}
	return found, nil
}

// Fingerprint is the hex SHA-256 of the public key (SubjectPublicKeyInfo) of
// cert: what a Peer record and a join token hold.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}
