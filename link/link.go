// Package link is the one port of a peer: a TCP listener whose connections go
// by the protocol named in their TLS greeting (ALPN) either to the peer
// protocols (raft, peer requests, gossip streams), each with a queue of its
// own behind mutual TLS, or, untouched, to the API server.
//
// Its invariant: a connection handed out for a peer protocol belongs to the
// peer that RemoteServerID names, of this mesh and this incarnation; and no
// number of API connections, idle or hostile, delays the handing out.
package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/peerid"
)

// Protocol is the ALPN name of what is spoken on a peer link.
type Protocol string

// The protocols of the mesh. All names begin with "skein-"; whatever else a
// client offers goes to the API server.
const (
	Raft   Protocol = "skein-raft/1"
	Peer   Protocol = "skein-peer/1"
	Gossip Protocol = "skein-gossip/1"

	prefix = "skein-"
)

// DefaultPort is the port of the API, of peer links and of gossip.
const DefaultPort = 6443

// Remote is who is at the other end of a link.
type Remote struct {
	ServerID    member.ServerID
	Name        member.Name
	Fingerprint string // of the key, see peerid.Fingerprint
	// Expired says that the certificate is outside its validity.
	Expired bool
}

// Mesh identifies what both ends must agree on.
type Mesh struct {
	Cluster     string `json:"cluster"`
	Incarnation string `json:"incarnation"`
}

// Credentials are what a peer shows and whom it trusts on peer links. The
// functions are called at each connection, concurrently, so that renewed
// certificates and changed records count at once.
type Credentials struct {
	// Self is the peer's own server id.
	Self member.ServerID
	// Certificate returns the peer's certificate.
	Certificate func() (*tls.Certificate, error)
	// Roots returns the authorities of peers.
	Roots func() *x509.CertPool
	// Mesh returns the cluster and incarnation the peer belongs to.
	Mesh func() Mesh
	// Authorize decides by the Peer records whether r may connect, or be
	// connected to; its error's text is told to r. Nil admits whoever has a
	// valid certificate. An expired certificate is admitted only by an
	// Authorize that knows its key.
	Authorize func(r Remote) error
}

func (c Credentials) check() error {
	switch {
	case c.Self == "":
		return errors.New("link: own server id is missing")
	case c.Certificate == nil || c.Roots == nil || c.Mesh == nil:
		return errors.New("link: certificate, roots or mesh is missing")
	}
	return nil
}

// The errors that callers branch on.
var (
	// ErrRefused is wrapped when the other end does not accept this peer.
	ErrRefused = errors.New("refused by the peer")
	// ErrOtherPeer is wrapped when an address leads to another peer than the wanted one.
	ErrOtherPeer = errors.New("another peer answers there")
	// ErrOtherMesh is wrapped when the ends are of different clusters or incarnations.
	ErrOtherMesh = errors.New("other cluster or incarnation")
	// ErrPortInUse is wrapped when the port is taken.
	ErrPortInUse = errors.New("port is in use")
)

// Conn is an established link. It is a *tls.Conn that knows its other end.
type Conn struct {
	*tls.Conn
	remote Remote
}

// RemoteServerID is the server id in the other end's certificate.
func (c *Conn) RemoteServerID() member.ServerID { return c.remote.ServerID }

// Remote is all that is known of the other end.
func (c *Conn) Remote() Remote { return c.remote }

// identify checks the presented chain against the roots, leaving expiry to
// the caller: a peer that was off for a month is still the peer it was.
func (c Credentials) identify(state tls.ConnectionState, now time.Time) (Remote, error) {
	if len(state.PeerCertificates) == 0 {
		return Remote{}, errors.New("no certificate was presented")
	}
	leaf := state.PeerCertificates[0]
	expired := now.Before(leaf.NotBefore) || now.After(leaf.NotAfter)
	at := now
	if expired {
		at = leaf.NotBefore.Add(time.Second)
	}
	between := x509.NewCertPool()
	for _, ca := range state.PeerCertificates[1:] {
		between.AddCert(ca)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: c.Roots(), Intermediates: between, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return Remote{}, fmt.Errorf("verify certificate of %q: %w", leaf.Subject.CommonName, err)
	}
	id, err := peerid.ServerID(leaf)
	if err != nil {
		return Remote{}, err
	}
	return Remote{
		ServerID: id, Name: member.Name(leaf.Subject.CommonName),
		Fingerprint: peerid.Fingerprint(leaf), Expired: expired,
	}, nil
}

func (c Credentials) authorize(r Remote) error {
	if c.Authorize != nil {
		return c.Authorize(r)
	}
	if r.Expired {
		return errors.New("the certificate has expired")
	}
	return nil
}

// config is the TLS configuration of either end. Only TLS 1.3, and no
// resumption: each connection proves its key.
func (c Credentials) config(protocols []string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		NextProtos:             protocols,
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.Certificate() },
		GetClientCertificate:   func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.Certificate() },
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := c.identify(state, time.Now())
			return err
		},
	}
}

// ListenPacket opens the UDP side of the one port.
func ListenPacket(ctx context.Context, address string) (net.PacketConn, error) {
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(ctx, "udp", address)
	if err != nil {
		return nil, listenError("udp", address, err)
	}
	return pc, nil
}

func listenError(network, address string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listen on %s %s: %w: another program, or another peer on this machine, has it", network, address, ErrPortInUse)
	}
	return fmt.Errorf("listen on %s %s: %w", network, address, err)
}

func isPeerProtocol(offered []string) bool {
	for _, p := range offered {
		if strings.HasPrefix(p, prefix) {
			return true
		}
	}
	return false
}
