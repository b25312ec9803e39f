// Package lb is the vocabulary in which a peer's kernel is told about
// services: which front addresses exist and which backends stand behind each.
// The nftables and IPVS adapters speak it, and so does what renders services.
//
// Its invariant: a front identifies a service; two services never share one.
package lb

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Protocol is an IP protocol number.
type Protocol uint8

// The protocols services have.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// String is the protocol as Kubernetes writes it.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case SCTP:
		return "SCTP"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// Front is an address that clients connect to.
type Front struct {
	// Addr is the service's address. The unspecified address of a family
	// means every address of the machine: a node port.
	Addr     netip.Addr
	Protocol Protocol
	Port     uint16
}

// String is the front for people, "TCP 10.96.0.1:443".
func (f Front) String() string {
	return f.Protocol.String() + " " + netip.AddrPortFrom(f.Addr, f.Port).String()
}

// Compare orders fronts by address, port and protocol.
func (f Front) Compare(o Front) int {
	return cmp.Or(f.Addr.Compare(o.Addr), cmp.Compare(f.Port, o.Port), cmp.Compare(f.Protocol, o.Protocol))
}

// Service is what a front leads to.
type Service struct {
	Front Front
	// Name says for people what it is, "namespace/name:port".
	Name string
	// Backends get the connections, each as often as any other. They are
	// of the front's family and sorted, without duplicates. With none, a
	// connection is refused at once.
	Backends []netip.AddrPort
	// Affinity keeps a client's address on one backend until the client
	// has been silent for as long; 0 means no affinity. At least a second.
	Affinity time.Duration
	// Drop makes a front without backends swallow packets in place of
	// refusing them: there are backends, but not on this machine.
	Drop bool
	// Masquerade gives connections the machine's address, because the
	// backend could not answer the client directly.
	Masquerade bool
}

// Equal reports whether both say the same.
func (s Service) Equal(o Service) bool {
	return s.Front == o.Front && s.Name == o.Name && s.Affinity == o.Affinity && s.Drop == o.Drop &&
		s.Masquerade == o.Masquerade && slices.Equal(s.Backends, o.Backends)
}

// Validate fails for what no kernel could be told.
func (s Service) Validate() error {
	if !s.Front.Addr.IsValid() || s.Front.Port == 0 {
		return fmt.Errorf("service %s: front %s is incomplete", s.Name, s.Front)
	}
	if s.Affinity != 0 && s.Affinity < time.Second {
		return fmt.Errorf("service %s: affinity %s is under a second", s.Name, s.Affinity)
	}
	for i, b := range s.Backends {
		if b.Addr().Is4() != s.Front.Addr.Is4() {
			return fmt.Errorf("service %s: backend %s is not of the front's family", s.Name, b)
		}
		if b.Port() == 0 {
			return fmt.Errorf("service %s: backend %s has no port", s.Name, b)
		}
		if i > 0 && s.Backends[i-1].Compare(b) >= 0 {
			return fmt.Errorf("service %s: backends are not sorted", s.Name)
		}
	}
	return nil
}

// Change is one step: what to write and what to take away. A service in Set
// replaces what its front led to. Removing a front that is not there is no
// error.
type Change struct {
	Set    []Service
	Remove []Front
}
