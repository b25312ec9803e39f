package daemon

import (
	"net/netip"
	"testing"
	"time"
)

// On a busy node addresses of pods come and go all the time: that neither puts
// off the end nor brings it about.
func TestAPeerMovesOnceItsAddressesHaveBeenAwayForAWhile(t *testing.T) {
	var a absence
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	if again, gone := a.look(true, now); again != addressPause || gone {
		t.Errorf("at once: again %v, gone %v", again, gone)
	}
	for range 9 {
		now = now.Add(addressPause / 10)
		if _, gone := a.look(true, now); gone {
			t.Fatal("gone too early")
		}
	}
	if again, gone := a.look(true, now.Add(addressPause/10)); !gone {
		t.Errorf("still waits, for %v, although each look found them away", again)
	}
	if _, gone := a.look(false, now); gone {
		t.Error("gone although they are back")
	}
	if _, gone := a.look(true, now.Add(time.Hour)); gone {
		t.Error("an absence before counts")
	}
}

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
