package link

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"skein.dev/skein/api/member"
)

// After the TLS handshake the dialer says which mesh and which peer it means,
// and the other end says yes, or why not: with TLS 1.3 alone a dialer would
// learn of a refusal only at its first read, and never the reason.

type hello struct {
	Mesh
	To member.ServerID `json:"to,omitempty"` // empty: whoever is there
}

type answer struct {
	Mesh
	Code   string `json:"code,omitempty"` // empty: welcome
	Reason string `json:"reason,omitempty"`
}

const (
	codeRefused   = "refused"
	codeOtherMesh = "otherMesh"
	codeOtherPeer = "otherPeer"

	maxHello = 4096
)

// welcome is the accepting end's half.
func (c Credentials) welcome(ctx context.Context, t *tls.Conn) (*Conn, error) {
	if err := bound(ctx, t); err != nil {
		return nil, err
	}
	var h hello
	if err := readMessage(t, &h); err != nil {
		return nil, err
	}
	remote, err := c.identify(t.ConnectionState(), time.Now())
	if err != nil {
		return nil, err
	}
	mine := c.Mesh()
	a := answer{Mesh: mine}
	switch {
	case h.Mesh != mine:
		a.Code, a.Reason = codeOtherMesh, differ(mine, h.Mesh)
	case h.To != "" && h.To != c.Self:
		a.Code, a.Reason = codeOtherPeer, "this is "+string(c.Self)
	default:
		if err := c.authorize(remote); err != nil {
			a.Code, a.Reason = codeRefused, err.Error()
		}
	}
	if err := writeMessage(t, a); err != nil {
		return nil, err
	}
	if a.Code != "" {
		return nil, fmt.Errorf("refuse %s: %s", remote.Name, a.Reason)
	}
	return done(t, remote)
}

// greet is the dialing end's half.
func (c Credentials) greet(ctx context.Context, t *tls.Conn, want member.ServerID) (*Conn, error) {
	if err := bound(ctx, t); err != nil {
		return nil, err
	}
	remote, err := c.identify(t.ConnectionState(), time.Now())
	if err != nil {
		return nil, err
	}
	if want != "" && remote.ServerID != want {
		return nil, fmt.Errorf("%w: want %s, found %s (%s)", ErrOtherPeer, want, remote.ServerID, remote.Name)
	}
	if err := c.authorize(remote); err != nil {
		return nil, fmt.Errorf("refuse %s: %w", remote.Name, err)
	}
	mine := c.Mesh()
	if err := writeMessage(t, hello{Mesh: mine, To: want}); err != nil {
		return nil, err
	}
	var a answer
	if err := readMessage(t, &a); err != nil {
		return nil, err
	}
	switch a.Code {
	case "":
		if a.Mesh != mine {
			return nil, fmt.Errorf("%w: %s", ErrOtherMesh, differ(a.Mesh, mine))
		}
		return done(t, remote)
	case codeOtherMesh:
		return nil, fmt.Errorf("%w: %s", ErrOtherMesh, a.Reason)
	case codeOtherPeer:
		return nil, fmt.Errorf("%w: %s", ErrOtherPeer, a.Reason)
	default:
		return nil, fmt.Errorf("%w %s: %s", ErrRefused, remote.Name, a.Reason)
	}
}

func differ(there, here Mesh) string {
	if there.Cluster != here.Cluster {
		return fmt.Sprintf("the peer is of cluster %s, this one of %s", there.Cluster, here.Cluster)
	}
	return fmt.Sprintf("the peer is of incarnation %s, this one of %s; one of them was left out of a recovery", there.Incarnation, here.Incarnation)
}

func bound(ctx context.Context, c net.Conn) error {
	d, ok := ctx.Deadline()
	if !ok {
		d = time.Now().Add(10 * time.Second)
	}
	if err := c.SetDeadline(d); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	return nil
}

func done(t *tls.Conn, r Remote) (*Conn, error) {
	if err := t.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("set deadline: %w", err)
	}
	return &Conn{Conn: t, remote: r}, nil
}

func writeMessage(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode greeting: %w", err)
	}
	if len(data) > maxHello {
		data = data[:0]
	}
	frame := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(data)), uint16(len(data)))
	if _, err := w.Write(append(frame, data...)); err != nil {
		return fmt.Errorf("send greeting: %w", err)
	}
	return nil
}

func readMessage(r io.Reader, into any) error {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("read greeting: %w", err)
	}
	n := binary.BigEndian.Uint16(head[:])
	if n > maxHello {
		return errors.New("read greeting: it is too long")
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return fmt.Errorf("read greeting: %w", err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("decode greeting: %w", err)
	}
	return nil
}
