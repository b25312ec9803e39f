// Package controllers gathers the controllers of the mesh: one package each,
// all on the loop of controllers/run.
//
// Its invariant: controllers meet only in API objects, each as a user of its
// own; none calls another.
package controllers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/component"
	"skein.dev/skein/api/member"
	"skein.dev/skein/api/role"
	"skein.dev/skein/controllers/accounttoken"
	"skein.dev/skein/controllers/csr"
	"skein.dev/skein/controllers/run"
)

// Access is what one controller works with.
type Access struct {
	// Kit reads the informers that all components of the peer share, and
	// writes and records as the controller's own user.
	component.Kit
	// Metadata reaches objects of every kind as that user; nil leaves out the
	// controllers that need it.
	Metadata metadata.Interface
}

// Config wires the controllers.
type Config struct {
	// As returns the access of a user. Each controller has one with the least
	// rights that serve it, upstream's, by the first roles; so a controller
	// that goes astray can do no more harm than its own. Required.
	As func(user string) (Access, error)
	// Log is for the loop that all run on; nil discards.
	Log *slog.Logger
	// Members tells which peers live.
	Members member.View
	// Monitor returns an informer of the metadata of a kind, which its user
	// runs; nil, or where it returns nil: the metadata is watched.
	Monitor func(schema.GroupVersionResource) cache.SharedIndexInformer
	// RootCA is the PEM bundle published as kube-root-ca.crt in every
	// namespace; empty: not published.
	RootCA []byte
	// ClientCA and ServingCA sign approved certificate requests, those of
	// clients and those of kubelets' servers; nil: nobody signs.
	ClientCA, ServingCA *csr.Authority
	// MintToken makes the tokens of Secrets of the old kind; nil: they stay
	// empty.
	MintToken accounttoken.Mint
	// Selection says which controllers run; see [Select].
	Selection Selection
	// Serves tells whether the API serves a resource; a controller runs only
	// where all kinds that it needs are served. Nil: only the controllers of
	// the kinds that every API server of ours serves.
	Serves func(schema.GroupResource) bool
	// MinRevision tells the revision of a fence's assignment, which informers
	// should show before the first reconcile: see [run.Config]. Nil or 0:
	// their first sync is enough.
	MinRevision func(role.Fence) uint64
}

// Controllers is the whole set, ready to run.
type Controllers struct {
	loop *run.Loop
}

// New takes all informers from the kits; the caller starts the factory
// afterwards.
func New(cfg Config) (*Controllers, error) {
	if cfg.Members == nil || cfg.As == nil {
		return nil, errors.New("controllers: access and members are required")
	}
	var all []run.Controller
	for _, m := range cfg.makers() {
		if !cfg.Selection.Runs(m.name) || !cfg.serves(m.needs) {
			continue
		}
		access, err := cfg.As(m.user())
		if err != nil {
			return nil, fmt.Errorf("give %s access as %s: %w", m.name, m.user(), err)
		}
		if m.wide && access.Metadata == nil {
			continue
		}
		c, err := m.make(access)
		if err != nil {
			return nil, fmt.Errorf("make %s: %w", m.name, err)
		}
		c.Recorder = access.Recorder
		all = append(all, c)
	}
	loop, err := run.New(run.Config{Controllers: all, Log: cfg.Log, MinRevision: cfg.MinRevision})
	if err != nil {
		return nil, fmt.Errorf("make loop: %w", err)
	}
	return &Controllers{loop: loop}, nil
}

// Run runs the controllers under the fence until ctx ends and returns nil; an
// error means that the role should move. progress (may be nil) is called at
// least every [run.Heartbeat] while no reconcile hangs. Run may be called
// again for a later epoch.
func (c *Controllers) Run(ctx context.Context, fence role.Fence, progress func()) error {
	return c.loop.Run(ctx, fence, progress) //nolint:wrapcheck // the loop's errors name their controller
}
