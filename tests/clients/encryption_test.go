package clients

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kms "k8s.io/kms/pkg/service"
)

// keyService is a KMS plugin that turns bits over: that it was asked is what
// counts.
type keyService struct{}

func turned(b []byte) []byte {
	out := bytes.Clone(b)
	for i := range out {
		out[i] ^= 0x5a
	}
	return out
}

// Encrypt implements kms.Service.
func (keyService) Encrypt(_ context.Context, _ string, data []byte) (*kms.EncryptResponse, error) {
	return &kms.EncryptResponse{Ciphertext: turned(data), KeyID: "one"}, nil
}

// Decrypt implements kms.Service.
func (keyService) Decrypt(_ context.Context, _ string, r *kms.DecryptRequest) ([]byte, error) {
	if r.KeyID != "one" {
		return nil, errors.New("no such key")
	}
	return turned(r.Ciphertext), nil
}

// Status implements kms.Service.
func (keyService) Status(context.Context) (*kms.StatusResponse, error) {
	return &kms.StatusResponse{Version: "v2", Healthz: "ok", KeyID: "one"}, nil
}

// sealed is a mesh whose peers all have an EncryptionConfiguration.
type sealed struct {
	*mesh

	files []string
	taken int // configurations, beside the first
}

const plain = "identity: {}"

func provider(kind, key string) string {
	return fmt.Sprintf("%s: {keys: [{name: %s, secret: %s}]}", kind, key, base64.StdEncoding.EncodeToString([]byte(strings.Repeat(key, 16))))
}

// config writes a peer's file.
func (s *sealed) config(file string, providers ...string) {
	s.Helper()
	text := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n"
	for _, p := range providers {
		text += "  - " + p + "\n"
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
}

// all writes every peer's file, and waits until each has taken it.
func (s *sealed) all(providers ...string) {
	s.Helper()
	s.taken++
	for i, p := range s.peers {
		s.config(s.files[i], providers...)
		eventually(s.T, p.name+" takes "+strings.Join(providers, ", "), func() bool {
			log, err := os.ReadFile(filepath.Join(p.dir, "data", "skein.log"))
			return err == nil && strings.Count(string(log), `msg="new configuration is taken"`) >= s.taken
		})
	}
}

// create makes a Secret through one peer and returns its value, which is
// nowhere else.
func (s *sealed) create(p *peer, name string) string {
	s.Helper()
	raw := make([]byte, 16)
	_, _ = rand.Read(raw) // never fails
	value := "value-" + hex.EncodeToString(raw)
	o := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"v": value}}
	if _, err := p.client.CoreV1().Secrets("default").Create(s.Context(), o, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
	return value
}

// read checks that every peer opens what was created.
func (s *sealed) read(want map[string]string) {
	s.Helper()
	for _, p := range s.peers {
		list, err := p.client.CoreV1().Secrets("").List(s.Context(), metav1.ListOptions{})
		if err != nil {
			s.Fatalf("%s: %v", p.name, err)
		}
		got := map[string]string{}
		for _, o := range list.Items {
			got[o.Name] = string(o.Data["v"])
		}
		for name, value := range want {
			if got[name] != value {
				s.Errorf("%s reads %s as %q, want %q", p.name, name, got[name], value)
			}
		}
	}
}

// stored reports whether some bytes are in a peer's store on disk.
func (s *sealed) stored(p *peer, text string) (found bool) {
	s.Helper()
	err := filepath.WalkDir(filepath.Join(p.dir, "data", "raft"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		found = found || bytes.Contains(raw, []byte(text))
		return err
	})
	if err != nil {
		s.Fatal(err)
	}
	return found
}

// anew writes all Secrets again, as the documentation says.
func (s *sealed) anew() {
	s.Helper()
	p := s.peers[0]
	file := filepath.Join(p.dir, "secrets.json")
	if err := os.WriteFile(file, []byte(s.run(p.kubeconfig, "get", "secrets", "-A", "-o", "json")), 0o600); err != nil {
		s.Fatal(err)
	}
	s.run(p.kubeconfig, "replace", "-f", file)
}

// TestEncryptionKeysAreReplacedWithoutLoss follows docs/apiserver.md through
// four ways of encrypting, on two peers that keep running.
func TestEncryptionKeysAreReplacedWithoutLoss(t *testing.T) {
	if *skein == "" {
		t.Skip("-skein names no program; `make clients` does")
	}
	s := &sealed{mesh: &mesh{T: t}}
	dir := t.TempDir()
	for i := range 2 {
		folder := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		s.files = append(s.files, filepath.Join(folder, "encryption.yaml"))
	}
	one, two := provider("aescbc", "a"), provider("secretbox", "bb")
	service := "kms: {apiVersion: v2, name: plug, endpoint: 'unix://" + filepath.Join(dir, "kms.sock") + "', timeout: 3s}"

	s.config(s.files[0], one, plain)
	s.add("up", "--encryption-provider-config", s.files[0])
	s.config(s.files[1], one, plain)
	token := strings.TrimSpace(s.run(s.peers[0].kubeconfig, "token", "create"))
	s.add("join", fmt.Sprint("127.0.0.1:", s.peers[0].port), "--token", token, "--encryption-provider-config", s.files[1])
	want := map[string]string{"first": s.create(s.peers[0], "first")}
	s.read(want)

	// A new key: readable everywhere, then first everywhere, then alone.
	s.all(one, two, plain)
	want["second"] = s.create(s.peers[1], "second")
	s.all(two, one, plain)
	want["third"] = s.create(s.peers[1], "third")
	s.read(want)
	s.anew()
	s.all(two)
	s.read(want)

	// A key service.
	socket := kms.NewGRPCService(filepath.Join(dir, "kms.sock"), 3*time.Second, keyService{})
	served := make(chan error, 1)
	go func() { served <- socket.ListenAndServe() }()
	t.Cleanup(func() {
		socket.Close()
		if err := <-served; err != nil {
			t.Errorf("key service: %v", err)
		}
	})
	s.all(two, service)
	s.all(service, two)
	want["fourth"] = s.create(s.peers[0], "fourth")
	s.anew()
	s.all(service)
	s.read(want)

	// What is not good changes nothing, and a peer that starts again opens all.
	s.config(s.files[1], "rot13: {}")
	eventually(t, "the bad file is told of", func() bool {
		log, err := os.ReadFile(filepath.Join(s.peers[1].dir, "data", "skein.log"))
		return err == nil && strings.Contains(string(log), `msg="new configuration is not taken, the one before holds"`)
	})
	want["fifth"] = s.create(s.peers[1], "fifth")
	s.read(want)
	s.config(s.files[1], service)
	s.stop(s.peers[1])
	s.start(s.peers[1])
	s.read(want)

	for _, p := range s.peers {
		for _, prefix := range []string{"k8s:enc:aescbc:v1:a:", "k8s:enc:secretbox:v1:bb:", "k8s:enc:kms:v2:plug:"} {
			if !s.stored(p, prefix) {
				t.Errorf("%s has stored nothing that begins with %s", p.name, prefix)
			}
		}
		for name, value := range want {
			if s.stored(p, value) {
				t.Errorf("%s has %s in plain on its disk", p.name, name)
			}
		}
	}
	// The check above can fail: in plain, the value is there to be found.
	s.taken = 0
	s.config(s.files[0], plain, service)
	eventually(t, "in plain again", func() bool {
		value := s.create(s.peers[0], fmt.Sprint("plain-", time.Now().UnixNano()))
		return s.stored(s.peers[0], value)
	})
}
