package volume

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"skein.dev/skein/kubelet/spec"
)

// tokenKey names one token of a pod.
type tokenKey struct {
	uid      types.UID
	account  string
	audience string
	seconds  int64
}

type token struct {
	value   []byte
	renew   time.Time
	expires time.Time
}

// renewAt is when a token is replaced: after 80 % of its life, and no later
// than a day after it was made, as the service account documentation says.
func renewAt(made, expires time.Time) time.Time {
	at := made.Add(expires.Sub(made) * 8 / 10)
	if day := made.Add(24 * time.Hour); day.Before(at) {
		return day
	}
	return at
}

// token returns a valid token and when to ask again. A token that is due and
// cannot be renewed serves until it expires.
func (s *Set) token(ctx context.Context, pod *corev1.Pod, volume string, p *corev1.ServiceAccountTokenProjection) ([]byte, time.Time, error) {
	key := tokenKey{uid: pod.UID, account: pod.Spec.ServiceAccountName, audience: p.Audience, seconds: 3600}
	if p.ExpirationSeconds != nil {
		key.seconds = *p.ExpirationSeconds
	}
	s.mu.Lock()
	have := s.tokens[key]
	s.mu.Unlock()
	now := time.Now()
	if have.value == nil {
		have = readToken(filepath.Join(s.dir(pod, "projected", volume), p.Path))
	}
	if now.Before(have.renew) {
		return have.value, have.renew, nil
	}
	req := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
		ExpirationSeconds: &key.seconds,
		BoundObjectRef:    &authv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if p.Audience != "" {
		req.Spec.Audiences = []string{p.Audience}
	}
	r, err := s.cfg.Objects.Token(ctx, pod.Namespace, key.account, req)
	if err != nil {
		if now.Before(have.expires) {
			s.cfg.Log.WarnContext(ctx, "token not renewed, keeping the old one", "pod", pod.Namespace+"/"+pod.Name, "err", err)
			return have.value, now.Add(time.Minute), nil
		}
		return nil, time.Time{}, fmt.Errorf("fetch token: %w", err)
	}
	expires := r.Status.ExpirationTimestamp
	if expires.IsZero() {
		expires = metav1.NewTime(now.Add(time.Duration(key.seconds) * time.Second))
	}
	have = token{value: []byte(r.Status.Token), renew: renewAt(now, expires.Time), expires: expires.Time}
	s.mu.Lock()
	s.tokens[key] = have
	s.mu.Unlock()
	return have.value, have.renew, nil
}

// tokenFile shows a token to who runs in the pod and to nobody else, where
// that is one user or the pod has a group (KEP-1205).
func tokenFile(pod *corev1.Pod, data []byte, m os.FileMode) file {
	owner := onlyUser(pod)
	if owner != nil || fsGroup(pod) != nil {
		m = 0o600
	}
	return file{data: data, mode: m, owner: owner}
}

// onlyUser is the user of all containers of a pod, if it is one and known.
func onlyUser(pod *corev1.Pod) *int64 {
	var only *int64
	for c := range spec.Containers(pod) {
		var user *int64
		if sc := pod.Spec.SecurityContext; sc != nil {
			user = sc.RunAsUser
		}
		if sc := c.SecurityContext; sc != nil && sc.RunAsUser != nil {
			user = sc.RunAsUser
		}
		if user == nil || only != nil && *only != *user {
			return nil
		}
		only = user
	}
	return only
}

// readToken finds a token that an earlier life of the kubelet wrote; what is
// none that can be understood is none. The file is ours, so its claims are
// believed without their signature.
func readToken(path string) token {
	b, err := os.ReadFile(path)
	if err != nil {
		return token{}
	}
	parts := strings.Split(string(b), ".")
	if len(parts) != 3 {
		return token{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return token{}
	}
	var claims struct {
		Made    int64 `json:"iat"`
		Expires int64 `json:"exp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil || claims.Made == 0 || claims.Expires == 0 {
		return token{}
	}
	made, expires := time.Unix(claims.Made, 0), time.Unix(claims.Expires, 0)
	return token{value: b, renew: renewAt(made, expires), expires: expires}
}
