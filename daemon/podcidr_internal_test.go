package daemon

import (
	"errors"
	"net/netip"
	"testing"
)

func TestPodRangesAreTheNthPartOfTheClusterRange(t *testing.T) {
	for _, row := range []struct {
		cluster string
		n       uint64
		want    string
	}{
		{"10.244.0.0/16", 0, "10.244.0.0/24"},
		{"10.244.0.0/16", 255, "10.244.255.0/24"},
		{"10.0.0.0/8", 258, "10.1.2.0/24"},
		{"fd00:10:244::/48", 1, "fd00:10:244:1::/64"},
		{"10.9.9.0/24", 0, "10.9.9.0/24"},
	} {
		got, err := nthPodCIDRs([]netip.Prefix{netip.MustParsePrefix(row.cluster)}, row.n)
		if err != nil || got[0].String() != row.want {
			t.Errorf("%s slot %d: got %v, %v, want %s", row.cluster, row.n, got, err, row.want)
		}
	}
}

func TestPodRangesEnd(t *testing.T) {
	for cluster, n := range map[string]uint64{"10.244.0.0/16": 256, "10.9.9.0/24": 1, "10.9.9.0/26": 0} {
		if got, err := nthPodCIDRs([]netip.Prefix{netip.MustParsePrefix(cluster)}, n); !errors.Is(err, errCIDRsExhausted) {
			t.Errorf("%s slot %d: got %v, %v, want exhausted", cluster, n, got, err)
		}
	}
}
