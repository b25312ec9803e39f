package kubelet

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skein.dev/skein/kubelet/cri"
	"skein.dev/skein/kubelet/lifecycle"
	"skein.dev/skein/kubelet/spec"
)

// pullsAtOnce bounds concurrent pulls of the node.
const pullsAtOnce = 5

// puller gets images as their policies say.
type puller struct {
	runtime *cri.Client
	objects *objects
	slots   chan struct{}
}

func newPuller(r *cri.Client, o *objects) *puller {
	return &puller{runtime: r, objects: o, slots: make(chan struct{}, pullsAtOnce)}
}

// pulled is an image that is there.
type pulled struct {
	id   string
	user spec.ImageUser
}

// pullError is why an image is not there, with the waiting reason.
type pullError struct {
	reason string
	err    error
}

func (e *pullError) Error() string { return e.err.Error() }
func (e *pullError) Unwrap() error { return e.err }

// policy returns the effective policy: without one, :latest is pulled always.
func policy(c *corev1.Container) corev1.PullPolicy {
	if c.ImagePullPolicy != "" {
		return c.ImagePullPolicy
	}
	name := c.Image[strings.LastIndex(c.Image, "/")+1:]
	if strings.Contains(name, "@") || (strings.Contains(name, ":") && !strings.HasSuffix(name, ":latest")) {
		return corev1.PullIfNotPresent
	}
	return corev1.PullAlways
}

// ensure applies the policy: Never uses only what is there, IfNotPresent asks
// the registry only for what is not, Always asks each time and fails with it.
func (p *puller) ensure(ctx context.Context, pod *corev1.Pod, c *corev1.Container, event func(kind, reason, note string)) (pulled, *pullError) {
	img, err := p.find(ctx, c.Image)
	if err != nil {
		event(corev1.EventTypeWarning, "InspectFailed", err.Error())
		return pulled{}, &pullError{"ImageInspectError", err}
	}
	switch pol := policy(c); {
	case img != nil && pol != corev1.PullAlways:
		event(corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine", c.Image))
		return image(img), nil
	case pol == corev1.PullNever:
		err := fmt.Errorf("Container image %q is not present with pull policy of Never", c.Image) //nolint:staticcheck // what upstream says
		event(corev1.EventTypeWarning, "ErrImageNeverPull", err.Error())
		return pulled{}, &pullError{lifecycle.ReasonErrImageNeverPull, err}
	}
	event(corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", c.Image))
	start := time.Now()
	if err := p.pull(ctx, pod, c.Image); err != nil {
		event(corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %v", c.Image, err))
		return pulled{}, &pullError{lifecycle.ReasonErrImagePull, err}
	}
	img, err = p.find(ctx, c.Image)
	if err == nil && img == nil {
		err = errors.New("image is gone right after its pull")
	}
	if err != nil {
		return pulled{}, &pullError{lifecycle.ReasonErrImagePull, err}
	}
	event(corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Successfully pulled image %q in %s. Image size: %d bytes.",
		c.Image, time.Since(start).Round(time.Millisecond), img.Size))
	return image(img), nil
}

func image(i *runtimeapi.Image) pulled {
	out := pulled{id: i.Id, user: spec.ImageUser{Name: i.Username}}
	switch {
	case i.Uid != nil:
		out.user.UID = &i.Uid.Value
	case i.Username == "":
		root := int64(0)
		out.user.UID = &root
	}
	return out
}

// find returns the image, nil if the node does not have it.
func (p *puller) find(ctx context.Context, ref string) (*runtimeapi.Image, error) {
	r, err := p.runtime.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	if err != nil {
		if cri.IsNotFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("failed to inspect image %q: %s", ref, message(err))
	}
	return r.Image, nil
}

// pull tries each credential that fits the registry, then none.
func (p *puller) pull(ctx context.Context, pod *corev1.Pod, ref string) error {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	auths := append(p.credentials(ctx, pod, ref), nil)
	var last error
	for _, auth := range auths {
		_, err := p.runtime.Images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}, Auth: auth})
		if err == nil {
			return nil
		}
		last = errors.New(message(err))
	}
	return last
}

// dockerConfig is the content of an image pull secret.
type dockerConfig struct {
	Auths map[string]dockerAuth `json:"auths"`
}

type dockerAuth struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
}

// credentials reads the pod's pull secrets. One that is missing or malformed
// is passed over: the pull then says what is wrong.
func (p *puller) credentials(ctx context.Context, pod *corev1.Pod, ref string) []*runtimeapi.AuthConfig {
	var out []*runtimeapi.AuthConfig
	for _, s := range pod.Spec.ImagePullSecrets {
		sec, err := p.objects.Secret(ctx, pod.Namespace, s.Name)
		if err != nil {
			continue
		}
		var cfg dockerConfig
		if b := sec.Data[corev1.DockerConfigJsonKey]; len(b) > 0 {
			err = json.Unmarshal(b, &cfg)
		} else if b := sec.Data[corev1.DockerConfigKey]; len(b) > 0 {
			err = json.Unmarshal(b, &cfg.Auths)
		}
		if err != nil {
			continue
		}
		for host, a := range cfg.Auths {
			if fits(host, ref) {
				out = append(out, a.cri(host))
			}
		}
	}
	return out
}

func (a dockerAuth) cri(host string) *runtimeapi.AuthConfig {
	out := &runtimeapi.AuthConfig{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, ServerAddress: host}
	if b, err := base64.StdEncoding.DecodeString(a.Auth); err == nil && out.Username == "" {
		out.Username, out.Password, _ = strings.Cut(strings.TrimRight(string(b), "\x00"), ":")
	}
	return out
}

// fits reports whether credentials for host (which may have a path) serve
// the image.
func fits(host, ref string) bool {
	for _, p := range []string{"https://", "http://"} {
		host = strings.TrimPrefix(host, p)
	}
	host = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(host, "/"), "/v1"), "/v2")
	first, _, found := strings.Cut(ref, "/")
	if !found || (!strings.ContainsAny(first, ".:") && first != "localhost") {
		ref = "docker.io/" + ref // the registry of names without one
	}
	if host == "index.docker.io" {
		host = "docker.io"
	}
	if suffix, wild := strings.CutPrefix(host, "*."); wild {
		name, _, _ := strings.Cut(ref, "/")
		sub, ok := strings.CutSuffix(name, "."+suffix)
		return ok && sub != "" && !strings.Contains(sub, ".")
	}
	return ref == host || strings.HasPrefix(ref, host+"/")
}
