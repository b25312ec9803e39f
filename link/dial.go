package link

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"skein.dev/skein/api/member"
)

// Dialer makes links to other peers. It is safe for concurrent use.
type Dialer struct {
	creds Credentials
	net   net.Dialer
}

// NewDialer returns a dialer with c.
func NewDialer(c Credentials) (*Dialer, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return &Dialer{creds: c, net: net.Dialer{KeepAlive: 5 * time.Second}}, nil
}

// Dial connects to addr (host:port) for proto and returns once the peer there
// has accepted. With want set it must be that very peer. A ctx without
// deadline is bounded at 10 s for the handshake.
func (d *Dialer) Dial(ctx context.Context, addr string, proto Protocol, want member.ServerID) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	raw, err := d.net.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial peer: %w", err)
	}
	conn, err := d.establish(ctx, raw, proto, want)
	if err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("dial peer %s: %w", addr, err)
	}
	return conn, nil
}

func (d *Dialer) establish(ctx context.Context, raw net.Conn, proto Protocol, want member.ServerID) (*Conn, error) {
	t := tls.Client(raw, d.creds.config([]string{string(proto)}))
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	if got := t.ConnectionState().NegotiatedProtocol; got != string(proto) {
		return nil, fmt.Errorf("handshake: %s is not spoken there", proto)
	}
	return d.creds.greet(ctx, t, want)
}
