package apiserver_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	kms "k8s.io/kms/pkg/service"

	"skein.dev/skein/apiserver"
	"skein.dev/skein/apiserver/kinds"
)

// encryptionFile writes resources and providers as a configuration.
func encryptionFile(t *testing.T, path string, rules ...string) {
	t.Helper()
	text := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- " + strings.Join(rules, "\n- ")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func provider(kind string, names ...string) string {
	var keys []string
	for _, name := range names {
		keys = append(keys, fmt.Sprintf("{name: %s, secret: %s}", name, base64.StdEncoding.EncodeToString(bytes.Repeat([]byte(name[:1]), 32))))
	}
	return fmt.Sprintf("{%s: {keys: [%s]}}", kind, strings.Join(keys, ", "))
}

func rule(resources string, providers ...string) string {
	return fmt.Sprintf("{resources: [%s], providers: [%s]}", resources, strings.Join(append(providers, "{identity: {}}"), ", "))
}

func (f *fixture) stored(t *testing.T, key string) string {
	t.Helper()
	e := f.store.Local().Get("/registry/" + key)
	if e == nil {
		t.Fatalf("%s is not stored", key)
	}
	return string(e.Value)
}

func newSecret(t *testing.T, c kubernetes.Interface, name string) {
	t.Helper()
	_, err := c.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"k": "v"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// rewrite replaces a secret by itself, as `kubectl replace` does.
func rewrite(t *testing.T, c kubernetes.Interface, name string) {
	t.Helper()
	s, err := c.CoreV1().Secrets("default").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if string(s.Data["k"]) != "v" {
		t.Errorf("secret %s: got %q", name, s.Data["k"])
	}
	if _, err := c.CoreV1().Secrets("default").Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestEncryptionFileSaysHowResourcesAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "encryption.yaml")
	encryptionFile(t, path, rule("configmaps", provider("secretbox", "sb")), rule(`"*.batch"`, provider("aesgcm", "g")), rule("secrets", provider("aescbc", "one")))
	f := start(t, func(c *apiserver.Config) { c.EncryptionFile = path })
	c := f.client(t, f.admin(t))
	newSecret(t, c, "s")
	mustCreate(t, c, configMap("m", map[string]string{"k": "v"}))
	for key, want := range map[string]string{
		"core/secrets/default/s":    "k8s:enc:aescbc:v1:one:",
		"core/configmaps/default/m": "k8s:enc:secretbox:v1:sb:",
		"core/namespaces/default":   "k8s\x00",
	} {
		if got := f.stored(t, key); !strings.HasPrefix(got, want) {
			t.Errorf("%s is kept as %.30q, want %q", key, got, want)
		}
	}
	if m, err := c.CoreV1().ConfigMaps("default").Get(t.Context(), "m", metav1.GetOptions{}); err != nil || m.Data["k"] != "v" {
		t.Errorf("read back: got %v, %v", m, err)
	}

	// A new key encrypts as soon as the file names it first, and what is
	// written again gets it.
	encryptionFile(t, path, rule("secrets", provider("aescbc", "two", "one")))
	f.ReloadEncryption()
	newSecret(t, c, "t")
	rewrite(t, c, "s")
	for _, name := range []string{"s", "t"} {
		if got := f.stored(t, "core/secrets/default/"+name); !strings.HasPrefix(got, "k8s:enc:aescbc:v1:two:") {
			t.Errorf("after the rotation %s is kept as %.30q", name, got)
		}
	}

	// What does not load changes nothing.
	encryptionFile(t, path, rule("secrets", "{aescbc: {keys: [{name: three, secret: short}]}}"))
	f.ReloadEncryption()
	newSecret(t, c, "u")
	if got := f.stored(t, "core/secrets/default/u"); !strings.HasPrefix(got, "k8s:enc:aescbc:v1:two:") {
		t.Errorf("after a bad file: kept as %.30q", got)
	}
	if _, err := apiserver.New(apiserver.Config{Store: f.store, Kinds: kinds.All(), EncryptionFile: path}); err == nil {
		t.Error("a server starts with a bad file")
	}
}

func TestOwnSealGivesWayToTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "encryption.yaml")
	encryptionFile(t, path, rule("configmaps", provider("aescbc", "one")))
	f := start(t, func(c *apiserver.Config) { c.EncryptionFile = path })
	c := f.client(t, f.admin(t))
	newSecret(t, c, "s")
	if got := f.stored(t, "core/secrets/default/s"); !strings.HasPrefix(got, "skein:seal:v1:k1:") {
		t.Errorf("without a word in the file: kept as %.30q", got)
	}
	encryptionFile(t, path, rule("secrets", provider("aescbc", "one")))
	f.ReloadEncryption()
	rewrite(t, c, "s")
	if got := f.stored(t, "core/secrets/default/s"); !strings.HasPrefix(got, "k8s:enc:aescbc:v1:one:") {
		t.Errorf("named by the file: kept as %.30q", got)
	}
}

// keyService is a key management service that turns bytes around.
type keyService struct{}

func (keyService) Encrypt(_ context.Context, _ string, data []byte) (*kms.EncryptResponse, error) {
	return &kms.EncryptResponse{Ciphertext: turned(data), KeyID: "k"}, nil
}

func (keyService) Decrypt(_ context.Context, _ string, req *kms.DecryptRequest) ([]byte, error) {
	return turned(req.Ciphertext), nil
}

func (keyService) Status(context.Context) (*kms.StatusResponse, error) {
	return &kms.StatusResponse{Version: "v2", Healthz: "ok", KeyID: "k"}, nil
}

func turned(data []byte) []byte {
	out := bytes.Clone(data)
	for i := range out {
		out[i] ^= 0xff
	}
	return out
}

func TestKeyManagementServiceEncrypts(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "kms.sock")
	service := kms.NewGRPCService(socket, time.Second, keyService{})
	go func() { _ = service.ListenAndServe() }()
	t.Cleanup(service.Close)
	path := filepath.Join(t.TempDir(), "encryption.yaml")
	encryptionFile(t, path, rule("secrets", fmt.Sprintf("{kms: {apiVersion: v2, name: turn, endpoint: %q, timeout: 3s}}", "unix://"+socket)))
	f := start(t, func(c *apiserver.Config) { c.EncryptionFile = path })
	c := f.client(t, f.admin(t))
	newSecret(t, c, "s")
	if got := f.stored(t, "core/secrets/default/s"); !strings.HasPrefix(got, "k8s:enc:kms:v2:turn:") {
		t.Errorf("kept as %.30q", got)
	}
	rewrite(t, c, "s")
	if code, _ := request(t, f.admin(t), "/readyz/kms-providers"); code != 200 {
		t.Errorf("health of the service: got %d", code)
	}
}
