package link

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

var errPeeked = errors.New("greeting seen")

// peek reads the TLS greeting from c and returns the protocols it offers and
// a connection that begins with the greeting again. Bytes that are no TLS
// offer nothing: the API server knows what to tell such a client. It fails
// if there is no greeting before the deadline.
func peek(c net.Conn, deadline time.Time) (offered []string, again net.Conn, err error) {
	if err := c.SetReadDeadline(deadline); err != nil {
		return nil, nil, fmt.Errorf("read greeting: %w", err)
	}
	rec := &recorder{Conn: c}
	// crypto/tls parses the greeting for us and is stopped before it answers.
	err = tls.Server(rec, &tls.Config{
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			offered = h.SupportedProtos
			return nil, errPeeked
		},
	}).Handshake() //nolint:noctx // the deadline bounds it
	var noTLS tls.RecordHeaderError
	if !errors.Is(err, errPeeked) && !errors.As(err, &noTLS) {
		return nil, nil, fmt.Errorf("read greeting: %w", err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return nil, nil, fmt.Errorf("read greeting: %w", err)
	}
	return offered, &replay{Conn: c, head: rec.seen.Bytes()}, nil
}

// recorder keeps what is read and swallows what is written.
type recorder struct {
	net.Conn
	seen bytes.Buffer
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.seen.Write(p[:n])
	return n, err
}

func (r *recorder) Write(p []byte) (int, error) { return len(p), nil }

func (r *recorder) Close() error { return nil }

// replay is a connection whose first bytes were read before.
type replay struct {
	net.Conn
	head []byte
}

func (r *replay) Read(p []byte) (int, error) {
	if len(r.head) > 0 && len(p) > 0 {
		n := copy(p, r.head)
		r.head = r.head[n:]
		if len(r.head) == 0 {
			r.head = nil
		}
		return n, nil
	}
	return r.Conn.Read(p)
}
