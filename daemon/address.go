package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"skein.dev/skein/network"
)

// addressPause is for how long addresses must have been others before the
// peer believes it: a renewed lease takes them away for a moment.
const addressPause = 10 * time.Second

// errAddresses ends the daemon, which the guard starts anew: nearly every part
// knows the machine's addresses, certificates included, and containers do not
// mind.
var errAddresses = errors.New("the machine has other addresses now")

// followAddresses ends with errAddresses when the machine has lost one of the
// addresses that this peer goes by. Addresses that the user gave are his to
// change.
func (p *peer) followAddresses(ctx context.Context) error {
	if !p.foundAddresses {
		<-ctx.Done()
		return nil
	}
	updates, done := make(chan netlink.AddrUpdate), make(chan struct{})
	defer close(done)
	err := netlink.AddrSubscribeWithOptions(updates, done, netlink.AddrSubscribeOptions{
		ErrorCallback: func(err error) { p.log.DebugContext(ctx, "address changes not heard", "err", err) },
	})
	if err != nil {
		p.log.WarnContext(ctx, "cannot hear of address changes", "err", err)
		<-ctx.Done()
		return nil
	}
	timer := time.NewTimer(0) // what changed before we listened
	defer timer.Stop()
	var away absence
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-updates:
			if !ok {
				updates = nil // the socket is gone; the next start looks
				continue
			}
		case <-timer.C:
		}
		machine, err := machineAddresses()
		if err != nil {
			continue
		}
		now, err := findAddresses()
		if err != nil {
			continue
		}
		again, gone := away.look(moved(p.Addresses, now, machine), time.Now())
		if gone {
			return fmt.Errorf("%w: %v instead of %v", errAddresses, now, p.Addresses)
		}
		if again > 0 {
			timer.Reset(again)
		}
	}
}

// absence is since when the peer's addresses have been others; its zero value
// has them here. However often the addresses of pods change meanwhile, it does
// not begin anew.
type absence struct{ since time.Time }

// look takes note of what was found, and tells when to look again, or that
// they have gone for good.
func (a *absence) look(away bool, now time.Time) (again time.Duration, gone bool) {
	switch {
	case !away:
		a.since = time.Time{}
		return 0, false
	case a.since.IsZero():
		a.since = now
	}
	left := addressPause - now.Sub(a.since)
	return left, left <= 0
}

// moved reports whether a peer that goes by was shall go by now: when one of
// its addresses has left the machine and there are others to go by. A machine
// that gets one more stays where it is, and one that has none waits.
func moved(was, now, machine []netip.Addr) bool {
	lost := slices.ContainsFunc(was, func(a netip.Addr) bool { return !slices.Contains(machine, a) })
	return lost && len(now) > 0 && !slices.Equal(was, now)
}

// machineAddresses are all addresses of the machine but those that this
// program puts there itself.
func machineAddresses() ([]netip.Addr, error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var out []netip.Addr
	for _, l := range links {
		if l.Name == network.LocalLink || l.Name == network.VXLANLink {
			continue
		}
		all, err := l.Addrs()
		if err != nil {
			continue // it has gone
		}
		for _, a := range all {
			if x, err := netip.ParsePrefix(a.String()); err == nil {
				out = append(out, x.Addr())
			}
		}
	}
	return out, nil
}
