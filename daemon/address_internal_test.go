package daemon

import (
	"net/netip"
	"testing"
)

func TestAPeerMovesOnlyWhenItHasLostAnAddressAndHasAnother(t *testing.T) {
	addrs := func(texts ...string) []netip.Addr {
		var out []netip.Addr
		for _, s := range texts {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	for _, c := range []struct {
		rule              string
		was, now, machine []netip.Addr
		want              bool
	}{
		{rule: "nothing changed", was: addrs("192.0.2.1"), now: addrs("192.0.2.1"), machine: addrs("127.0.0.1", "192.0.2.1")},
		{rule: "another address", was: addrs("192.0.2.1"), now: addrs("192.0.2.9"), machine: addrs("127.0.0.1", "192.0.2.9"), want: true},
		{rule: "one more, even before the old one", was: addrs("192.0.2.1"), now: addrs("192.0.2.0"), machine: addrs("192.0.2.0", "192.0.2.1")},
		{rule: "one of two families went", was: addrs("192.0.2.1", "2001:db8::1"), now: addrs("192.0.2.1"), machine: addrs("192.0.2.1"), want: true},
		{rule: "none is left: wait", was: addrs("192.0.2.1"), machine: addrs("127.0.0.1")},
	} {
		if got := moved(c.was, c.now, c.machine); got != c.want {
			t.Errorf("%s: %v, want %v", c.rule, got, c.want)
		}
	}
}
