package daemon_test

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"skein.dev/skein/daemon"
)

func TestEvictionThresholdsAreReadAsUpstreamWritesThem(t *testing.T) {
	for text, want := range map[string]string{
		"memory.available<100Mi,imagefs.available<5%": "",
		"imagefs.available=5%":                        "want signal<amount",
		"disk.available<5%":                           "no such signal",
	} {
		c := daemon.DefaultConfig()
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		c.AddFlags(fs)
		if err := fs.Parse([]string{"--name", "p1", "--address", "192.0.2.1", "--eviction-hard", text}); err != nil {
			t.Fatal(err)
		}
		err := c.Complete()
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}
