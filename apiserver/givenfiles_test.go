package apiserver_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/server/options"

	"skein.dev/skein/apiserver"
)

// TestFilesAreCheckedBeforeAnythingStarts has what New would find only later;
// tests/clients gives the command itself bad files of every kind.
func TestFilesAreCheckedBeforeAnythingStarts(t *testing.T) {
	const group = "apiVersion: apiserver.config.k8s.io/v1\nkind: "
	for name, c := range map[string]struct {
		give           func(c *apiserver.Config, path string)
		content, wrong string
	}{
		"good": {
			func(c *apiserver.Config, path string) { c.AuthorizationFile = path },
			group + "AuthorizationConfiguration\nauthorizers: [{type: Node, name: node}, {type: RBAC, name: rbac}]\n", "",
		},
		"a plugin that exists only once a webhook does": {
			func(c *apiserver.Config, path string) { c.AdmissionFile = path },
			group + "AdmissionConfiguration\nplugins: [{name: MutatingAdmissionWebhook, configuration: {apiVersion: apiserver.config.k8s.io/v1, kind: WebhookAdmissionConfiguration, kubeConfigFile: x}}]\n",
			"admission-control-config-file",
		},
		"a plugin that exists only once a quota does": {
			func(c *apiserver.Config, path string) { c.AdmissionFile = path },
			group + "AdmissionConfiguration\nplugins: [{name: ResourceQuota, configuration: {apiVersion: v1, kind: Pod}}]\n",
			"admission-control-config-file",
		},
		"an audit webhook": {
			func(c *apiserver.Config, path string) {
				c.Audit = options.NewAuditOptions()
				c.Audit.WebhookOptions.ConfigFile = path
			}, "{}", "audit-webhook-config-file",
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file.yaml")
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			var given apiserver.Config
			c.give(&given, path)
			err := given.CheckFiles(t.Context())
			var bad *apiserver.FileError
			switch {
			case c.wrong == "" && err != nil:
				t.Errorf("got %v", err)
			case c.wrong != "" && (!errors.As(err, &bad) || bad.Flag != c.wrong || bad.Path != path || !strings.HasPrefix(bad.Hint(), "the file must be ")):
				t.Errorf("got %v, want an error of %s", err, c.wrong)
			}
		})
	}
}
