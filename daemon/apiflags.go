package daemon

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/server/options"

	"skein.dev/skein/apiserver"
)

// APIConfig is what an operator may set of the API server, by upstream's flags.
type APIConfig struct {
	AdmissionFile       string                // AdmissionConfiguration
	EncryptionFile      string                // EncryptionConfiguration
	Audit               *options.AuditOptions // nothing is audited without a policy file
	MaxReads, MaxWrites int                   // worked on at the same time
	RequestTimeout      time.Duration
	ShutdownDelay       time.Duration // goes on, no longer ready, before it stops
	GoawayChance        float64
	HSTS                []string
}

// auditFlags are those of upstream's that are offered here.
func auditFlags() []string {
	return []string{
		"audit-policy-file", "audit-log-path", "audit-log-maxage", "audit-log-maxbackup", "audit-log-maxsize", "audit-log-format",
		"audit-log-compress", "audit-log-mode", "audit-log-truncate-enabled",
		"audit-webhook-config-file", "audit-webhook-mode", "audit-webhook-truncate-enabled",
	}
}

func defaultAPIConfig() APIConfig {
	return APIConfig{Audit: options.NewAuditOptions(), MaxReads: 400, MaxWrites: 200, RequestTimeout: time.Minute}
}

func (c *APIConfig) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&c.AdmissionFile, "admission-control-config-file", c.AdmissionFile, "file with the configuration of admission plugins (PodSecurity, ResourceQuota, webhooks)")
	fs.StringVar(&c.EncryptionFile, "encryption-provider-config", c.EncryptionFile,
		"file that says how resources are encrypted in the store, the same on all peers (default: secrets, by the mesh's own key)")
	fs.IntVar(&c.MaxReads, "max-requests-inflight", c.MaxReads, "read requests that are worked on at the same time")
	fs.IntVar(&c.MaxWrites, "max-mutating-requests-inflight", c.MaxWrites, "write requests that are worked on at the same time")
	fs.DurationVar(&c.RequestTimeout, "request-timeout", c.RequestTimeout, "how long a request may take that is no watch or stream")
	fs.DurationVar(&c.ShutdownDelay, "shutdown-delay-duration", c.ShutdownDelay, "how long the API goes on, no longer ready, before it stops")
	fs.Float64Var(&c.GoawayChance, "goaway-chance", c.GoawayChance, "share of requests, up to 0.02, whose client is told to connect anew")
	fs.StringSliceVar(&c.HSTS, "strict-transport-security-directives", c.HSTS, "directives of the header Strict-Transport-Security")
	if c.Audit == nil {
		c.Audit = options.NewAuditOptions()
	}
	all := pflag.NewFlagSet("audit", pflag.ContinueOnError)
	c.Audit.AddFlags(all)
	for _, name := range auditFlags() {
		fs.AddFlag(all.Lookup(name))
	}
}

// complete checks the settings. Files are found by their absolute paths from
// now on: the daemon may be started again from elsewhere.
func (c *APIConfig) complete() error {
	files := []*string{&c.AdmissionFile, &c.EncryptionFile}
	if c.Audit != nil {
		if err := utilerrors.NewAggregate(c.Audit.Validate()); err != nil {
			return err
		}
		files = append(files, &c.Audit.PolicyFile, &c.Audit.WebhookOptions.ConfigFile)
		if c.Audit.LogOptions.Path != "-" {
			files = append(files, &c.Audit.LogOptions.Path)
		}
		if c.Audit.PolicyFile == "" && (c.Audit.LogOptions.Path != "" || c.Audit.WebhookOptions.ConfigFile != "") {
			return errors.New("audit-log-path and audit-webhook-config-file need audit-policy-file, which says what is audited")
		}
	}
	for _, f := range files {
		if *f == "" {
			continue
		}
		abs, err := filepath.Abs(*f)
		if err != nil {
			return fmt.Errorf("resolve %s: %w", *f, err)
		}
		*f = abs
	}
	switch {
	case c.MaxReads < 0 || c.MaxWrites < 0:
		return errors.New("max-requests-inflight and max-mutating-requests-inflight must not be negative")
	case c.GoawayChance < 0 || c.GoawayChance > 0.02:
		return fmt.Errorf("goaway-chance %g: must be between 0 and 0.02", c.GoawayChance)
	case c.RequestTimeout < 0 || c.ShutdownDelay < 0:
		return errors.New("request-timeout and shutdown-delay-duration must not be negative")
	}
	return nil
}

// CheckFiles says what is wrong with the files that the API server is given,
// before anything is made or started.
func (c *Config) CheckFiles(ctx context.Context) error {
	return c.apiFiles().CheckFiles(ctx)
}

// apiFiles is the part of the API server's configuration that names files.
func (c *Config) apiFiles() *apiserver.Config {
	return &apiserver.Config{
		AuthenticationFile: c.AuthenticationConfig, AuthorizationFile: c.AuthorizationConfig,
		TokenWebhook:  apiserver.TokenWebhook{File: c.TokenWebhookConfig, Version: c.TokenWebhookVersion},
		AdmissionFile: c.API.AdmissionFile, EncryptionFile: c.API.EncryptionFile, Audit: c.API.Audit,
	}
}
