// Package alloc gives services their cluster addresses and node ports.
//
// Its invariant: what is given out is a key that the service claims in the
// very transaction that stores it, so two peers can choose the same address
// but only one of them gets it.
package alloc

import (
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// ErrFull says that nothing is free in a range.
var ErrFull = errors.New("range is full")

// Ranges are what a cluster has to give.
type Ranges struct {
	CIDRs     []netip.Prefix
	FirstPort int32
	LastPort  int32
}

// Family is the family of a range.
func Family(r netip.Prefix) corev1.IPFamily {
	if r.Addr().Is6() {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

// First is the first usable address of a range: that of the API.
func First(r netip.Prefix) netip.Addr { return r.Masked().Addr().Next() }

// IPClaim is the key that stands for a cluster address, PortClaim that of a
// node port.
func IPClaim(ip string) string {
	if a, err := netip.ParseAddr(ip); err == nil {
		ip = a.String()
	}
	return "clusterip/" + ip
}

// PortClaim is the key that stands for a node port of a protocol.
func PortClaim(protocol corev1.Protocol, port int32) string {
	return "nodeport/" + string(protocol) + "/" + strconv.Itoa(int(port))
}

// Claims returns what a service holds for itself alone.
func Claims(s *corev1.Service) []string {
	var out []string
	if s.Spec.Type != corev1.ServiceTypeExternalName {
		for _, ip := range s.Spec.ClusterIPs {
			if ip != "" && ip != corev1.ClusterIPNone {
				out = append(out, IPClaim(ip))
			}
		}
	}
	for _, p := range s.Spec.Ports {
		if p.NodePort != 0 {
			out = append(out, PortClaim(p.Protocol, p.NodePort))
		}
	}
	if p := s.Spec.HealthCheckNodePort; p != 0 {
		out = append(out, PortClaim(corev1.ProtocolTCP, p))
	}
	return out
}

// size is how many addresses r has, at most 65,536: ranges beyond that are
// used from their beginning.
func size(r netip.Prefix) int {
	bits := r.Addr().BitLen() - r.Bits()
	return 1 << min(bits, 16)
}

func offset(r netip.Prefix, n int) netip.Addr {
	base := r.Masked().Addr()
	sum := new(big.Int).Add(new(big.Int).SetBytes(base.AsSlice()), big.NewInt(int64(n)))
	raw := make([]byte, base.BitLen()/8)
	a, _ := netip.AddrFromSlice(sum.FillBytes(raw))
	return a
}

// IP chooses a free address of r. The lower part of a range is left to those
// who name their address themselves, as long as there are others (KEP-3070).
func IP(r netip.Prefix, taken func(claim string) bool) (netip.Addr, error) {
	n := size(r)
	last := n - 1
	if r.Addr().Is4() {
		last = n - 2 // the broadcast address is not given out
	}
	band := min(max(16, n/16), 256)
	if n < 64 {
		band = 0
	}
	for _, span := range [][2]int{{max(band, 2), last}, {2, min(band, last)}} {
		count := span[1] - span[0] + 1
		if count <= 0 {
			continue
		}
		start := rand.IntN(count)
		for i := range count {
			ip := offset(r, span[0]+(start+i)%count)
			if !taken(IPClaim(ip.String())) {
				return ip, nil
			}
		}
	}
	return netip.Addr{}, fmt.Errorf("allocate from %s: %w", r, ErrFull)
}

// Port chooses a node port that is free for all protocols.
func (r Ranges) Port(protocols []corev1.Protocol, taken func(claim string) bool) (int32, error) {
	count := int(r.LastPort-r.FirstPort) + 1
	if count <= 0 {
		return 0, fmt.Errorf("allocate node port: %w", ErrFull)
	}
	// KEP-3668 leaves the lower ports to those who name theirs.
	band := min(max(16, count/32), 128)
	if count < 2*band {
		band = 0
	}
	for _, span := range [][2]int{{band, count - band}, {0, band}} {
		if span[1] == 0 {
			continue
		}
		start := rand.IntN(span[1])
		for i := range span[1] {
			port := r.FirstPort + int32(span[0]+(start+i)%span[1])
			free := true
			for _, p := range protocols {
				free = free && !taken(PortClaim(p, port))
			}
			if free {
				return port, nil
			}
		}
	}
	return 0, fmt.Errorf("allocate node port from %d-%d: %w", r.FirstPort, r.LastPort, ErrFull)
}
