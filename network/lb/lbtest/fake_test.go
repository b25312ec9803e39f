package lbtest_test

import (
	"net/netip"
	"testing"

	"skein.dev/skein/network/lb/lbtest"
)

func TestTheFakeConforms(t *testing.T) {
	lbtest.Run(t, netip.MustParseAddr("10.96.0.7"), func(*testing.T) lbtest.World { return &lbtest.Kernel{} })
	lbtest.Run(t, netip.MustParseAddr("fd96::7"), func(*testing.T) lbtest.World { return &lbtest.Kernel{V6: true} })
}
