package raftstore

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"skein.dev/skein/api/member"
)

// raftAddress is how raft knows where a server is. The id is part of it, so
// that a dial can tell a peer that was emptied and came back at the same
// address from the one it was: raft's messages do not name their receiver.
func raftAddress(id member.ServerID, addr string) raft.ServerAddress {
	return raft.ServerAddress(string(id) + "@" + addr)
}

func splitAddress(a raft.ServerAddress) (id member.ServerID, addr string, ok bool) {
	i, addr, ok := strings.Cut(string(a), "@")
	return member.ServerID(i), addr, ok
}

// stream is raft's way to other peers. It implements [raft.StreamLayer].
type stream struct {
	network Network
	self    raft.ServerAddress
	members *members
	log     *slog.Logger
}

// Accept implements [net.Listener]; it yields members only.
func (s *stream) Accept() (net.Conn, error) {
	for {
		c, err := s.network.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if m := admit(c, s.members, s.log); m != nil {
			return m, nil
		}
	}
}

// Close implements [net.Listener].
func (s *stream) Close() error { return s.network.Listener.Close() }

// Addr implements [net.Listener]; raft tells it to others as where we are.
func (s *stream) Addr() net.Addr { return textAddr(s.self) }

// Dial implements [raft.StreamLayer].
func (s *stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, addr, ok := splitAddress(address)
	if !ok {
		return nil, fmt.Errorf("dial raft peer %q: not a raft address", address)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout) //nolint:forbidigo // raft's StreamLayer has no context
	defer cancel()
	c, err := s.network.Dial(ctx, id, addr)
	if err != nil {
		return nil, fmt.Errorf("dial raft peer %s: %w", id, err)
	}
	return verify(c, id)
}

type textAddr string

func (textAddr) Network() string  { return "raft" }
func (a textAddr) String() string { return string(a) }

// verify hands c on if id is at its far end.
func verify(c net.Conn, id member.ServerID) (net.Conn, error) {
	if far, ok := c.(Identified); !ok || far.RemoteServerID() != id {
		_ = c.Close()
		return nil, fmt.Errorf("dial peer %s: somebody else answers", id)
	}
	return c, nil
}

// admit returns c guarded, or nil and c closed if its far end is no member.
func admit(c net.Conn, m *members, log *slog.Logger) *memberConn {
	far, ok := c.(Identified)
	if ok && m.allowed(far.RemoteServerID()) {
		return &memberConn{Conn: c, id: far.RemoteServerID(), members: m}
	}
	ctx := context.Background() //nolint:forbidigo // accepting has no context
	log.WarnContext(ctx, "refused a connection of no member", "remote", c.RemoteAddr().String(), "identified", ok)
	_ = c.Close()
	return nil
}

// memberConn stops to yield data when its far end is no longer a member.
type memberConn struct {
	net.Conn
	id      member.ServerID
	members *members
}

// Read implements [net.Conn].
func (c *memberConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.members.allowed(c.id) {
		_ = c.Close()
		return 0, fmt.Errorf("peer %s is no longer a member", c.id)
	}
	return n, err
}
