// Package volume makes a pod's volumes on the node and takes them away.
//
// Its invariant: files of a volume that is made of API objects change all at
// once, by one rename, and never between two reads of one set.
package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Objects reads what volumes are made of. NotFound is apimachinery's.
type Objects interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// Token asks for a token of a service account.
	Token(ctx context.Context, namespace, account string, req *authv1.TokenRequest) (*authv1.TokenRequest, error)
	// Claimed returns the volume that a claim is bound to.
	Claimed(ctx context.Context, namespace, claim string) (*corev1.PersistentVolume, error)
}

// Config of a [Set].
type Config struct {
	// Root holds a directory a pod, named by its UID.
	Root    string
	Objects Objects
	// Certificates is for projections of trust bundles and pod certificates;
	// without it the node does not know them.
	Certificates Certificates
	// Allocatable is the node's, for resourceFieldRef.
	Allocatable func() corev1.ResourceList
	Log         *slog.Logger
}

// Place is where a container finds a volume on the node.
type Place struct {
	// Host is a path on the node. Empty when Image is set.
	Host string
	// Image is the reference of an image volume.
	Image    string
	ReadOnly bool
}

// Set is the volumes of all pods on the node. Its methods may be called
// concurrently for different pods.
type Set struct {
	cfg Config

	mu     sync.Mutex // guards the fields below
	tokens map[tokenKey]token
	issues map[certKey]issue
}

// New returns the volumes under cfg.Root.
func New(cfg Config) (*Set, error) {
	if cfg.Root == "" || cfg.Objects == nil {
		return nil, errors.New("volume: root and objects are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Allocatable == nil {
		cfg.Allocatable = func() corev1.ResourceList { return nil }
	}
	return &Set{cfg: cfg, tokens: map[tokenKey]token{}, issues: map[certKey]issue{}}, nil
}

// PodDir is the directory of one pod.
func (s *Set) PodDir(uid types.UID) string { return filepath.Join(s.cfg.Root, string(uid)) }

func (s *Set) dir(pod *corev1.Pod, kind, name string) string {
	return filepath.Join(s.PodDir(pod.UID), "volumes", "kubernetes.io~"+kind, name)
}

// Ensure makes all volumes of the pod or brings them up to date, and returns
// where they are and when it wants to be called again (zero: only when an
// object changes). It is safe to repeat; an error names the volume.
func (s *Set) Ensure(ctx context.Context, pod *corev1.Pod) (map[string]Place, time.Time, error) {
	places := make(map[string]Place, len(pod.Spec.Volumes))
	var next time.Time
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		p, again, err := s.ensure(ctx, pod, v)
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("MountVolume.SetUp failed for volume %q: %w", v.Name, err)
		}
		places[v.Name] = p
		next = earlier(next, again)
	}
	return places, next, nil
}

// earlier is the earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (s *Set) ensure(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (Place, time.Time, error) {
	var none time.Time
	switch {
	case v.EmptyDir != nil:
		p, err := s.emptyDir(pod, v)
		return p, none, err
	case v.HostPath != nil:
		p, err := hostPath(v.HostPath)
		return p, none, err
	case v.PersistentVolumeClaim != nil:
		p, err := s.claim(ctx, pod, v.PersistentVolumeClaim)
		return p, none, err
	case v.Image != nil:
		return Place{Image: v.Image.Reference, ReadOnly: true}, none, nil
	case v.ConfigMap != nil:
		c := v.ConfigMap
		f, err := s.configMap(ctx, pod.Namespace, c.Name, c.Items, mode(c.DefaultMode), isTrue(c.Optional))
		return s.write(pod, "configmap", v.Name, f, none, err)
	case v.Secret != nil:
		c := v.Secret
		f, err := s.secret(ctx, pod.Namespace, c.SecretName, c.Items, mode(c.DefaultMode), isTrue(c.Optional))
		return s.write(pod, "secret", v.Name, f, none, err)
	case v.DownwardAPI != nil:
		f, err := s.downward(pod, v.DownwardAPI.Items, mode(v.DownwardAPI.DefaultMode))
		return s.write(pod, "downward-api", v.Name, f, none, err)
	case v.Projected != nil:
		f, again, err := s.projected(ctx, pod, v.Name, v.Projected)
		return s.write(pod, "projected", v.Name, f, again, err)
	}
	return Place{}, none, errors.New("this node does not know the volume's type")
}

// write puts files into the volume's directory.
func (s *Set) write(pod *corev1.Pod, kind, name string, f files, again time.Time, err error) (Place, time.Time, error) {
	if err != nil {
		return Place{}, time.Time{}, err
	}
	dir := s.dir(pod, kind, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Place{}, time.Time{}, fmt.Errorf("make volume: %w", err)
	}
	// MkdirAll minds the umask, and containers run as anybody.
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		return Place{}, time.Time{}, fmt.Errorf("make volume: %w", err)
	}
	if err := publish(dir, f, fsGroup(pod)); err != nil {
		return Place{}, time.Time{}, err
	}
	return Place{Host: dir, ReadOnly: true}, again, nil
}

func fsGroup(pod *corev1.Pod) *int64 {
	if sc := pod.Spec.SecurityContext; sc != nil {
		return sc.FSGroup
	}
	return nil
}

func isTrue(b *bool) bool { return b != nil && *b }

func mode(p *int32) os.FileMode {
	if p == nil {
		return 0o644
	}
	return os.FileMode(*p) & 0o777
}

// Remove unmounts and deletes everything the pod has on the node.
func (s *Set) Remove(uid types.UID) error {
	if uid == "" || filepath.Base(string(uid)) != string(uid) {
		return fmt.Errorf("remove volumes: bad pod uid %q", uid)
	}
	dir := s.PodDir(uid)
	if err := unmountBelow(dir); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove pod directory: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.tokens, func(k tokenKey, _ token) bool { return k.uid == uid })
	maps.DeleteFunc(s.issues, func(k certKey, _ issue) bool { return k.uid == uid })
	return nil
}

// Pods lists the pods that have a directory.
func (s *Set) Pods() ([]types.UID, error) {
	entries, err := os.ReadDir(s.cfg.Root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pod directories: %w", err)
	}
	out := make([]types.UID, 0, len(entries))
	for _, e := range entries {
		out = append(out, types.UID(e.Name()))
	}
	return out, nil
}
