package volume_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skein.dev/skein/kubelet/volume"
)

// cluster is the objects that volumes are made of.
type cluster struct {
	maps   map[string]map[string]string
	tokens int
	life   time.Duration
	down   bool
}

func (c *cluster) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	d, ok := c.maps[name]
	if !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
	}
	return &corev1.ConfigMap{Data: d}, nil
}

func (c *cluster) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
}

func (c *cluster) Token(context.Context, string, string, *authv1.TokenRequest) (*authv1.TokenRequest, error) {
	if c.down {
		return nil, apierrors.NewTimeoutError("no quorum", 1)
	}
	c.tokens++
	now := time.Now()
	claims := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"iat":%d,"exp":%d}`, now.Unix(), now.Add(c.life).Unix()))
	return &authv1.TokenRequest{Status: authv1.TokenRequestStatus{Token: "h." + claims + ".s", ExpirationTimestamp: metav1.NewTime(now.Add(c.life))}}, nil
}

func (c *cluster) Claimed(context.Context, string, string) (*corev1.PersistentVolume, error) {
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "persistentvolumeclaims"}, "x")
}

func open(t *testing.T, c *cluster) (*volume.Set, string) {
	t.Helper()
	root := t.TempDir()
	s, err := volume.New(volume.Config{Root: root, Objects: c})
	if err != nil {
		t.Fatal(err)
	}
	return s, root
}

func pod(src corev1.VolumeSource) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"},
		Spec:       corev1.PodSpec{Volumes: []corev1.Volume{{Name: "v", VolumeSource: src}}},
	}
}

func configMap(name string, optional bool, items ...corev1.KeyToPath) corev1.VolumeSource {
	return corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, Optional: &optional, Items: items,
	}}
}

func TestFilesChangeTogetherAndOnlyWhenTheyDiffer(t *testing.T) {
	c := &cluster{maps: map[string]map[string]string{"m": {"a": "1", "b": "1"}}}
	s, _ := open(t, c)
	p := pod(configMap("m", false))
	places, _, err := s.Ensure(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	dir := places["v"].Host
	set := func() string {
		l, err := os.Readlink(filepath.Join(dir, "..data"))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	first := set()
	if _, _, err := s.Ensure(t.Context(), p); err != nil || set() != first {
		t.Errorf("an unchanged volume was written again: %v", err)
	}
	c.maps["m"] = map[string]string{"a": "2", "c": "2"}
	if _, _, err := s.Ensure(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if set() == first {
		t.Error("the set of files was changed in place")
	}
	for name, want := range map[string]string{"a": "2", "c": "2"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q %v", name, b, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "b")); err == nil {
		t.Error("a key that is gone is still a file")
	}
	if sets, _ := filepath.Glob(filepath.Join(dir, "..set_*")); len(sets) != 1 {
		t.Errorf("old sets are left: %v", sets)
	}
}

func TestMissingObjectsAndKeys(t *testing.T) {
	c := &cluster{maps: map[string]map[string]string{"m": {"a": "1"}}}
	s, _ := open(t, c)
	for name, v := range map[string]struct {
		src corev1.VolumeSource
		ok  bool
	}{
		"missing object":          {configMap("none", false), false},
		"missing optional object": {configMap("none", true), true},
		"missing key":             {configMap("m", false, corev1.KeyToPath{Key: "z", Path: "z"}), false},
		"missing optional key":    {configMap("m", true, corev1.KeyToPath{Key: "z", Path: "z"}), true},
		"path that leaves":        {configMap("m", false, corev1.KeyToPath{Key: "a", Path: "../../etc/x"}), false},
		"absolute path":           {configMap("m", false, corev1.KeyToPath{Key: "a", Path: "/etc/x"}), false},
		"unknown type":            {corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}, false},
	} {
		if _, _, err := s.Ensure(t.Context(), pod(v.src)); (err == nil) != v.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHostPathTypes(t *testing.T) {
	s, _ := open(t, &cluster{})
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		kind corev1.HostPathType
		ok   bool
	}{
		{dir, corev1.HostPathDirectory, true},
		{file, corev1.HostPathDirectory, false},
		{file, corev1.HostPathFile, true},
		{filepath.Join(dir, "none"), corev1.HostPathFile, false},
		{filepath.Join(dir, "none"), corev1.HostPathUnset, true},
		{filepath.Join(dir, "new", "dir"), corev1.HostPathDirectoryOrCreate, true},
		{filepath.Join(dir, "newfile"), corev1.HostPathFileOrCreate, true},
		{file, corev1.HostPathSocket, false},
		{"/dev/null", corev1.HostPathCharDev, true},
		{"/dev/null", corev1.HostPathBlockDev, false},
	} {
		_, _, err := s.Ensure(t.Context(), pod(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: c.path, Type: &c.kind}}))
		if (err == nil) != c.ok {
			t.Errorf("%s as %q: %v", c.path, c.kind, err)
		}
	}
}

func tokenVolume() corev1.VolumeSource {
	return corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
	}}}
}

func TestTokensAreKeptRenewedAndSurviveARestart(t *testing.T) {
	c := &cluster{life: time.Hour}
	s, root := open(t, c)
	p := pod(tokenVolume())
	_, next, err := s.Ensure(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(next); left < 47*time.Minute || left > 48*time.Minute {
		t.Errorf("renewal in %s, want 80 %% of an hour", left)
	}
	if _, _, err := s.Ensure(t.Context(), p); err != nil || c.tokens != 1 {
		t.Errorf("%d tokens were asked for: %v", c.tokens, err)
	}
	again, err := volume.New(volume.Config{Root: root, Objects: c})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := again.Ensure(t.Context(), p); err != nil || c.tokens != 1 {
		t.Errorf("after a restart %d tokens were asked for: %v", c.tokens, err)
	}
}

func TestADueTokenServesWhileItCannotBeRenewed(t *testing.T) {
	synctest.Test(t, dueToken)
}

func dueToken(t *testing.T) {
	c := &cluster{life: time.Hour}
	s, _ := open(t, c)
	p := pod(tokenVolume())
	if _, _, err := s.Ensure(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Minute)
	c.down = true
	if _, next, err := s.Ensure(t.Context(), p); err != nil || next.IsZero() {
		t.Errorf("a token that is still valid was given up: %v", err)
	}
	time.Sleep(11 * time.Minute)
	if _, _, err := s.Ensure(t.Context(), p); err == nil {
		t.Error("a token that has expired still serves")
	}
}

func TestSubPathStaysInItsVolume(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
	s, _ := open(t, &cluster{})
	p := pod(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
	places, _, err := s.Ensure(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	vol := places["v"].Host
	secret := t.TempDir()
	if err := os.Symlink(secret, filepath.Join(vol, "out")); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"out", "out/x", "../x", "/etc"} {
		if at, err := s.SubPath(p, "v", "c", 0, vol, bad, false); err == nil {
			t.Errorf("subPath %q gave %s", bad, at)
		}
	}
	at, err := s.SubPath(p, "v", "c", 1, vol, "deep/down", false)
	if err != nil && strings.Contains(err.Error(), "operation not permitted") {
		t.Skip("mounts are not permitted here")
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(at, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(vol, "deep", "down", "f")); err != nil {
		t.Error("the mount does not show the volume")
	}
	if err := s.Remove(p.UID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.PodDir(p.UID)); err == nil {
		t.Error("the pod's directory is left")
	}
	if err := s.Remove("../x"); err == nil {
		t.Error("removed outside of the root")
	}
}
