package apiserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

	mutatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	validatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
	auditpolicy "k8s.io/apiserver/pkg/audit/policy"
	authorizationcel "k8s.io/apiserver/pkg/authorization/cel"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/util/webhook"

	"skein.dev/skein/apiserver/admit"
)

// FileError says which of an administrator's files cannot be used.
type FileError struct {
	Flag, Path string
	wants      string
	err        error
}

// Error implements error.
func (e *FileError) Error() string { return fmt.Sprintf("%s: %s: %v", e.Flag, e.Path, e.err) }

// Unwrap is why.
func (e *FileError) Unwrap() error { return e.err }

// Hint says what the file should be.
func (e *FileError) Hint() string { return "the file must be " + e.wants }

// CheckFiles reads the files that c names as [New] would, and what is read
// only once somebody needs it too, so that a mistake is told while its author
// looks. It asks nobody: neither issuers nor key services.
func (c *Config) CheckFiles(ctx context.Context) error {
	type given struct {
		flag, path, wants string
		check             func(path string) error
	}
	const aKubeconfig = "a kubeconfig with the server to ask"
	all := []given{
		{"admission-control-config-file", c.AdmissionFile, "an AdmissionConfiguration of apiserver.config.k8s.io/v1", checkAdmission},
		{"encryption-provider-config", c.EncryptionFile, "an EncryptionConfiguration of apiserver.config.k8s.io/v1", func(path string) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel() // lets go of the key services
			_, err := encryptionconfig.LoadEncryptionConfig(ctx, path, true, string(c.Peer))
			return err
		}},
		{"authentication-config", c.AuthenticationFile, "an AuthenticationConfiguration of apiserver.config.k8s.io/v1", c.checkAuthentication},
		{"authorization-config", c.AuthorizationFile, "an AuthorizationConfiguration of apiserver.config.k8s.io/v1, with Node and RBAC among the authorizers", checkAuthorization},
		{"authentication-token-webhook-config-file", c.TokenWebhook.File, aKubeconfig, checkKubeconfig},
	}
	if c.Audit != nil {
		all = append(all, given{"audit-policy-file", c.Audit.PolicyFile, "a Policy of audit.k8s.io/v1, in YAML blocks or JSON", func(path string) error {
			_, err := auditpolicy.LoadPolicyFromFile(path)
			return err
		}}, given{"audit-webhook-config-file", c.Audit.WebhookOptions.ConfigFile, aKubeconfig, checkKubeconfig})
		if at, err := os.Stat(c.Audit.LogOptions.Path); err == nil && at.IsDir() {
			return &FileError{Flag: "audit-log-path", Path: c.Audit.LogOptions.Path, wants: "one that is written to, in a directory of its own", err: errors.New("is a directory")}
		}
	}
	for _, f := range all {
		if f.path == "" {
			continue
		}
		_, err := os.Stat(f.path)
		if err == nil {
			err = f.check(f.path)
		}
		if err != nil {
			return &FileError{Flag: f.flag, Path: f.path, wants: f.wants, err: err}
		}
	}
	return nil
}

func checkKubeconfig(path string) error {
	_, err := webhook.LoadKubeconfig(path, nil)
	return err
}

func checkAdmission(path string) error {
	files, err := readAdmissionFile(path)
	if err != nil {
		return err
	}
	if _, err := admit.PodSecurityConfig(files[podSecurityPlugin]); err != nil {
		return err
	}
	if _, err := newQuota(files.of(quotaPlugin)); err != nil {
		return fmt.Errorf("plugin %s: %w", quotaPlugin, err)
	}
	if _, err := mutatingwebhook.NewMutatingWebhook(files.of(mutatingPlugin)); err != nil {
		return fmt.Errorf("plugin %s: %w", mutatingPlugin, err)
	}
	if _, err := validatingwebhook.NewValidatingAdmissionWebhook(files.of(validatingPlugin)); err != nil {
		return fmt.Errorf("plugin %s: %w", validatingPlugin, err)
	}
	return nil
}

func (c *Config) checkAuthentication(path string) error {
	raw, err := os.ReadFile(path)
	if err == nil {
		_, err = parseAuthentication(raw, cmp.Or(c.Issuer, defaultIssuer))
	}
	return err
}

func checkAuthorization(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	compiler := authorizationcel.NewDefaultCompiler()
	file, err := parseAuthorization(raw, compiler)
	if err != nil {
		return err
	}
	for _, a := range file.Authorizers {
		if string(a.Type) == modeWebhook {
			if _, err := decidingWebhook(&a, compiler); err != nil {
				return fmt.Errorf("authorizer %s: %w", a.Name, err)
			}
		}
	}
	return nil
}
