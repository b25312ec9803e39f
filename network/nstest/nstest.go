// Package nstest gives tests network namespaces of their own.
//
// Its invariant: a test that uses it never touches the namespace the machine
// lives in, and its namespaces are gone when it ends.
package nstest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"skein.dev/skein/network/ns"
)

// NS is a network namespace that lives as long as its test.
type NS struct {
	// Path opens the namespace, also for child processes of the test.
	Path string

	handle netns.NsHandle
}

// New makes an empty namespace with its loopback up. It skips the test where
// that is not allowed.
func New(tb testing.TB) *NS {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("making network namespaces needs root")
	}
	made := make(chan error, 1)
	n := &NS{}
	go func() {
		runtime.LockOSThread() // the thread dies with the goroutine
		h, err := netns.New()
		n.handle = h
		made <- err
	}()
	if err := <-made; err != nil {
		tb.Skipf("making network namespaces is not possible here: %v", err)
	}
	tb.Cleanup(func() { _ = n.handle.Close() })
	n.Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(n.handle))
	n.Do(tb, func() error {
		// Without duplicate address detection IPv6 works at once.
		for _, c := range []string{"all", "default"} {
			if err := os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", c, "accept_dad"), []byte("0"), 0o644); err != nil && !os.IsNotExist(err) {
				return err
			}
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	return n
}

// Do runs fn in the namespace and fails the test with its error.
func (n *NS) Do(tb testing.TB, fn func() error) {
	tb.Helper()
	if err := ns.Do(n.Path, fn); err != nil {
		tb.Fatal(err)
	}
}

// Join connects n and other by a veth pair with these names and addresses
// (CIDR notation; empty gives none).
func (n *NS) Join(tb testing.TB, name, addr string, other *NS, otherName, otherAddr string) {
	tb.Helper()
	n.Do(tb, func() error {
		la := netlink.NewLinkAttrs()
		la.Name = name
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: otherName, PeerNamespace: netlink.NsFd(int(other.handle))})
	})
	n.Address(tb, name, addr)
	other.Address(tb, otherName, otherAddr)
}

// Address adds addr to the link and sets it up.
func (n *NS) Address(tb testing.TB, link, addr string) {
	tb.Helper()
	n.Do(tb, func() error {
		l, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		if addr != "" {
			a, err := netlink.ParseAddr(addr)
			if err != nil {
				return err
			}
			if strings.Contains(addr, ":") {
				a.Flags = 0x02 // nodad: usable at once
			}
			if err := netlink.AddrAdd(l, a); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(l)
	})
}

// Route adds a route to dst (CIDR, or "default" for IPv4) through gw.
func (n *NS) Route(tb testing.TB, dst, gw string) {
	tb.Helper()
	n.Do(tb, func() error {
		r := &netlink.Route{Gw: net.ParseIP(gw)}
		if dst != "default" {
			_, d, err := net.ParseCIDR(dst)
			if err != nil {
				return err
			}
			r.Dst = d
		}
		return netlink.RouteAdd(r)
	})
}

// Forward makes the namespace forward packets.
func (n *NS) Forward(tb testing.TB) {
	tb.Helper()
	n.Do(tb, func() error {
		return os.WriteFile(filepath.Join("/proc/sys/net/ipv4", "ip_forward"), []byte("1"), 0o644)
	})
}
