package clients

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestABadFileIsToldInOneLine gives files with mistakes: before anything is
// made the command says which file, and why, and what it should be.
func TestABadFileIsToldInOneLine(t *testing.T) {
	if *skein == "" {
		t.Skip("-skein names no program; `make clients` does")
	}
	const config = "apiVersion: apiserver.config.k8s.io/v1\nkind: "
	for name, c := range map[string]struct{ flag, content, why string }{
		"no file":                     {"encryption-provider-config", "", "no such file or directory"},
		"no YAML":                     {"audit-policy-file", "a: b: c\n", "yaml"},
		"another kind":                {"audit-policy-file", config + "EncryptionConfiguration\n", "apiserver.config.k8s.io/v1"},
		"audit level":                 {"audit-policy-file", "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Loud}]\n", "Loud"},
		"audit without rules":         {"audit-policy-file", "apiVersion: audit.k8s.io/v1\nkind: Policy\n", "0 rules"},
		"audit webhook":               {"audit-webhook-config-file", "apiVersion: v1\nkind: Config\nclusters: []\n", "invalid configuration"},
		"log that is a folder":        {"audit-log-path", "/", "is a directory"},
		"key of a wrong length":       {"encryption-provider-config", config + "EncryptionConfiguration\nresources: [{resources: [secrets], providers: [{aescbc: {keys: [{name: a, secret: YWJj}]}}]}]\n", "secret"},
		"unknown provider":            {"encryption-provider-config", config + "EncryptionConfiguration\nresources: [{resources: [secrets], providers: [{rot13: {}}]}]\n", "rot13"},
		"unknown admission plugin":    {"admission-control-config-file", config + "AdmissionConfiguration\nplugins: [{name: ImagePolicyWebhook}]\n", "ImagePolicyWebhook"},
		"pod security level":          {"admission-control-config-file", config + "AdmissionConfiguration\nplugins: [{name: PodSecurity, configuration: {apiVersion: pod-security.admission.config.k8s.io/v1, kind: PodSecurityConfiguration, defaults: {enforce: tight}}}]\n", "tight"},
		"missing file of a plugin":    {"admission-control-config-file", config + "AdmissionConfiguration\nplugins: [{name: ValidatingAdmissionWebhook, path: nowhere.yaml}]\n", "nowhere.yaml"},
		"webhooks without a file":     {"admission-control-config-file", config + "AdmissionConfiguration\nplugins: [{name: MutatingAdmissionWebhook, configuration: {apiVersion: apiserver.config.k8s.io/v1, kind: WebhookAdmissionConfiguration, kubeConfigFile: relative.yaml}}]\n", "relative.yaml"},
		"unknown field":               {"authentication-config", config + "AuthenticationConfiguration\njwts: []\n", "jwts"},
		"issuer without TLS":          {"authentication-config", config + "AuthenticationConfiguration\njwt: [{issuer: {url: 'http://x', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}}}]\n", "https"},
		"this cluster as issuer":      {"authentication-config", config + "AuthenticationConfiguration\njwt: [{issuer: {url: 'https://kubernetes.default.svc', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}}}]\n", "disallowed"},
		"no RBAC":                     {"authorization-config", config + "AuthorizationConfiguration\nauthorizers: [{type: Node, name: node}]\n", "RBAC is missing"},
		"always allow":                {"authorization-config", config + "AuthorizationConfiguration\nauthorizers: [{type: AlwaysAllow, name: all}]\n", "AlwaysAllow"},
		"deciding webhook's file":     {"authorization-config", config + "AuthorizationConfiguration\nauthorizers: [{type: Node, name: node}, {type: RBAC, name: rbac}, {type: Webhook, name: ask, webhook: {timeout: 3s, failurePolicy: Deny, subjectAccessReviewVersion: v1, matchConditionSubjectAccessReviewVersion: v1, authorizedTTL: 1s, unauthorizedTTL: 1s, connectionInfo: {type: KubeConfigFile, kubeConfigFile: /nowhere/w.yaml}}}]\n", "/nowhere/w.yaml"},
		"token webhook's credentials": {"authentication-token-webhook-config-file", "apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: [{name: x, context: {cluster: x}}]\nclusters: [{name: x, cluster: {server: 'https://127.0.0.1:1', certificate-authority: /nowhere/ca.pem}}]\n", "/nowhere/ca.pem"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "given.yaml")
			switch {
			case strings.HasPrefix(c.content, "/"):
				file = c.content
			case c.content != "":
				if err := os.WriteFile(file, []byte(c.content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			args := []string{"up", "--engine", "none", "--detach", "--data-dir", filepath.Join(dir, "data"), "--state-dir", filepath.Join(dir, "run"), "--" + c.flag, file}
			if c.flag == "audit-webhook-config-file" || c.flag == "audit-log-path" {
				policy := filepath.Join(dir, "policy.yaml")
				if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
					t.Fatal(err)
				}
				args = append(args, "--audit-policy-file", policy)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, *skein, args...)
			var errs bytes.Buffer
			cmd.Stderr = &errs
			err := cmd.Run()
			lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
			if err == nil || len(lines) != 2 || !strings.HasPrefix(lines[0], "skein: "+c.flag+": "+file+": ") ||
				!strings.Contains(lines[0], c.why) || !strings.HasPrefix(lines[1], "hint: the file must be ") {
				t.Errorf("%v:\n%s\nwant one line that names %s, the file and %q, and a hint", err, errs.String(), c.flag, c.why)
			}
			if _, err := os.Stat(filepath.Join(dir, "data")); !os.IsNotExist(err) {
				t.Errorf("a data directory was left: %v", err)
			}
		})
	}
}
