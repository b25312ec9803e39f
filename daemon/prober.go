package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/peerid"
	"skein.dev/skein/gossip"
	"skein.dev/skein/guard"
	"skein.dev/skein/identity"
	"skein.dev/skein/link"
	"skein.dev/skein/raftstore"
)

// links are this peer's ways to the others: it implements what gossip and the
// store need of the network.
type links struct {
	dialer    *link.Dialer
	keyring   *identity.Keyring
	own       tls.Certificate
	guardPort int
}

// Dial implements gossip.Dialer.
func (l *links) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	c, err := l.dialer.Dial(ctx, addr.String(), link.Gossip, "")
	if err != nil {
		return nil, err
	}
	return c, nil
}

// ProbeDaemon implements gossip.Prober.
func (l *links) ProbeDaemon(ctx context.Context, m gossip.Member) error {
	c, err := l.dialer.Dial(ctx, netip.AddrPortFrom(m.Addresses[0], m.Port).String(), link.Peer, m.ServerID)
	if err != nil {
		return err
	}
	return c.Close()
}

// ProbeGuard implements gossip.Prober.
func (l *links) ProbeGuard(ctx context.Context, m gossip.Member) error {
	addr := net.JoinHostPort(m.Addresses[0].String(), strconv.Itoa(l.guardPort))
	_, err := guard.Probe(ctx, addr, &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{l.own},
		// A peer is known by its server id, not by the address it has today.
		InsecureSkipVerify: true,
		VerifyConnection:   func(s tls.ConnectionState) error { return l.verify(s, m.ServerID) },
	})
	return err
}

func (l *links) verify(s tls.ConnectionState, want member.ServerID) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	leaf := s.PeerCertificates[0]
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: l.keyring.Pool(identity.Peers), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}); err != nil {
		return fmt.Errorf("verify certificate: %w", err)
	}
	if id, err := peerid.ServerID(leaf); err != nil || id != want {
		return fmt.Errorf("%w: want %s", link.ErrOtherPeer, want)
	}
	return nil
}

// network is one of the store's kinds of connection over the one port.
func (l *links) network(port *link.Port, proto link.Protocol) raftstore.Network {
	return raftstore.Network{
		Listener: port.Listener(proto),
		Dial: func(ctx context.Context, id member.ServerID, address string) (net.Conn, error) {
			c, err := l.dialer.Dial(ctx, address, proto, id)
			if err != nil {
				return nil, err
			}
			return c, nil
		},
	}
}
