package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/api/mesh/v1alpha1"
	"skein.dev/skein/api/role"
	"skein.dev/skein/controllers"
)

// Engine is what runs pods on a peer.
type Engine string

// The engines. Containerd also stands for an engine of the user's own, which
// the runtime endpoint names.
const (
	Containerd Engine = "containerd"
	NoEngine   Engine = "none"
)

// APIOnly says that the peer runs no pods: it has no kubelet, pod network,
// service proxy or DNS, registers no Node and needs no root.
func (c *Config) APIOnly() bool { return c.Engine == NoEngine }

// checkParts refuses combinations of which one part says no to another.
func (c *Config) checkParts() error {
	if c.Engine != Containerd && c.Engine != NoEngine {
		return fmt.Errorf("engine %q: known are %s and %s", c.Engine, Containerd, NoEngine)
	}
	if c.APIOnly() && c.RuntimeEndpoint != "" {
		return fmt.Errorf("engine none: runtime-endpoint %s names an engine", c.RuntimeEndpoint)
	}
	if _, err := controllers.Select(c.Controllers); err != nil {
		return fmt.Errorf("controllers: %w", err)
	}
	return nil
}

// declines are the roles whose work this peer does not do.
func (c *Config) declines() []role.Name {
	var out []role.Name
	if !c.Scheduler {
		out = append(out, role.Scheduler)
	}
	if s, err := controllers.Select(c.Controllers); err == nil && s.None() {
		out = append(out, role.Controllers)
	}
	return out
}

// keepRecord makes the mesh's record of this peer say what its configuration
// does, which may have changed since the peer joined.
func keepRecord(ctx context.Context, c Config, name string, peers peerClient) error {
	p, err := peers.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil // it is leaving
	}
	if err != nil {
		return fmt.Errorf("read own record: %w", err)
	}
	declines, at := plain(c.declines()), texts(c.Addresses)
	if p.Spec.APIOnly == c.APIOnly() && slices.Equal(p.Spec.Declines, declines) && slices.Equal(p.Spec.Addresses, at) && p.Spec.Port == int32(c.Port) {
		return nil
	}
	p = p.DeepCopy()
	p.Spec.APIOnly, p.Spec.Declines, p.Spec.Addresses, p.Spec.Port = c.APIOnly(), declines, at, int32(c.Port)
	if _, err := peers.Update(ctx, p, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("write own record: %w", err)
	}
	return nil
}

// persist calls f until it succeeds or ctx ends.
func (p *peer) persist(ctx context.Context, what string, f func(context.Context) error) {
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		p.log.DebugContext(ctx, "not done yet, is tried again", "what", what, "err", err)
		if pause(ctx, 200*time.Millisecond) != nil {
			return
		}
	}
}

// declined are the roles that a record declines.
func declined(p *v1alpha1.Peer) []role.Name {
	var out []role.Name
	for _, text := range p.Spec.Declines {
		out = append(out, role.Name(text))
	}
	return out
}

func plain(names []role.Name) []string {
	var out []string
	for _, n := range names {
		out = append(out, string(n))
	}
	return out
}

// checkDeclines lets a joiner decline only roles that there are.
func checkDeclines(names []role.Name) error {
	for i, n := range names {
		if !slices.Contains(role.All(), n) || slices.Contains(names[:i], n) {
			return fmt.Errorf("role %q: there is none to decline, or it is declined twice", n)
		}
	}
	return nil
}

// errNoEngine answers who asks an API-only peer for its container engine.
var errNoEngine = errors.New("engine: this peer has none, it is only an API server")
