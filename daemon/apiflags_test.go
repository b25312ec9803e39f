package daemon_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"skein.dev/skein/daemon"
)

func parsed(t *testing.T, args ...string) (*daemon.Config, *pflag.FlagSet) {
	t.Helper()
	c := daemon.DefaultConfig()
	fs := pflag.NewFlagSet("up", pflag.ContinueOnError)
	c.AddFlags(fs)
	if err := fs.Parse(append([]string{"--name=a", "--address=192.0.2.1"}, args...)); err != nil {
		t.Fatal(err)
	}
	return &c, fs // the flags set what they were added to
}

func TestAPIFlagsSurviveARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	_, fs := parsed(t, "--audit-policy-file=/p", "--audit-log-path=/l", "--audit-log-maxsize=7", "--audit-webhook-mode=blocking",
		"--encryption-provider-config=/e", "--admission-control-config-file=/a", "--max-requests-inflight=9", "--goaway-chance=0.01",
		"--request-timeout=30s", "--strict-transport-security-directives=max-age=1,includeSubDomains")
	if err := daemon.SaveFile(path, fs); err != nil {
		t.Fatal(err)
	}
	c, fs := parsed(t)
	if err := daemon.LoadFile(path, fs); err != nil {
		t.Fatal(err)
	}
	if err := c.Complete(); err != nil {
		t.Fatal(err)
	}
	got := c.API
	if got.Audit.PolicyFile != "/p" || got.Audit.LogOptions.Path != "/l" || got.Audit.LogOptions.MaxSize != 7 ||
		got.Audit.WebhookOptions.BatchOptions.Mode != "blocking" || got.EncryptionFile != "/e" || got.AdmissionFile != "/a" ||
		got.MaxReads != 9 || got.MaxWrites != 200 || got.GoawayChance != 0.01 || got.RequestTimeout != 30*time.Second ||
		strings.Join(got.HSTS, ";") != "max-age=1;includeSubDomains" {
		t.Errorf("got %+v, audit %+v", got, got.Audit)
	}
}

func TestAPIFlagsThatMakeNoSenseAreRefused(t *testing.T) {
	for flag, want := range map[string]string{
		"--audit-log-path=/l":            "audit-policy-file",
		"--goaway-chance=0.5":            "goaway-chance",
		"--max-requests-inflight=-1":     "max-requests-inflight",
		"--request-timeout=-1s":          "request-timeout",
		"--audit-webhook-config-file=/w": "audit-policy-file",
	} {
		c, _ := parsed(t, flag)
		if err := c.Complete(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want a word about %s", flag, err, want)
		}
	}
}
