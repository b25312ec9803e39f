package dnsaddon

import (
	"fmt"
	"net/netip"
	"testing"
)

// ReadResolvConf shows what resolvConf reads.
func ReadResolvConf(t *testing.T, path string, own ...netip.Addr) string {
	t.Helper()
	servers, search, err := resolvConf(path, own)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(servers, search)
}
