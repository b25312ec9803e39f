// Package controllers gathers the controllers of the mesh: one package each,
// all on the loop of controllers/run.
//
// Its invariant: controllers meet only in API objects; none calls another.
package controllers

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"

	"skein.dev/skein/api/component"
	"skein.dev/skein/api/member"
	"skein.dev/skein/api/role"
	"skein.dev/skein/controllers/daemonset"
	"skein.dev/skein/controllers/deployment"
	"skein.dev/skein/controllers/endpoints"
	"skein.dev/skein/controllers/endpointslice"
	"skein.dev/skein/controllers/gc"
	"skein.dev/skein/controllers/namespace"
	"skein.dev/skein/controllers/nodelifecycle"
	"skein.dev/skein/controllers/podgc"
	"skein.dev/skein/controllers/replicaset"
	"skein.dev/skein/controllers/run"
	"skein.dev/skein/controllers/serviceaccount"
)

// Config wires the controllers.
type Config struct {
	Kit component.Kit
	// Members tells which peers live.
	Members member.View
	// Metadata reaches objects of every kind, for namespace deletion and
	// garbage collection; nil leaves these two out.
	Metadata metadata.Interface
	// RootCA is the PEM bundle published as kube-root-ca.crt in every
	// namespace; empty: not published.
	RootCA []byte
	// Enabled says which controllers run, by upstream's names such as
	// "replicaset-controller"; nil: all.
	Enabled func(name string) bool
	// Serves tells whether the API serves a resource; controllers of kinds
	// that came after the first ones (DaemonSet) run only where their kinds
	// are served. Nil: those are left out.
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

// New takes all informers from the kit; the caller starts the factory
// afterwards.
func New(cfg Config) (*Controllers, error) {
	if cfg.Members == nil || cfg.Kit.Client == nil || cfg.Kit.Informers == nil || cfg.Kit.Recorder == nil || cfg.Kit.Log == nil {
		return nil, errors.New("controllers: kit and members are required")
	}
	kit := cfg.Kit
	makers := []func() (run.Controller, error){
		func() (run.Controller, error) { return replicaset.New(kit) },
		func() (run.Controller, error) { return deployment.New(kit) },
		func() (run.Controller, error) { return endpointslice.New(kit) },
		func() (run.Controller, error) { return endpoints.New(kit) },
		func() (run.Controller, error) { return serviceaccount.New(kit, cfg.RootCA) },
		func() (run.Controller, error) { return nodelifecycle.New(kit, cfg.Members) },
		func() (run.Controller, error) { return podgc.New(kit) },
	}
	if cfg.Metadata != nil {
		makers = append(makers,
			func() (run.Controller, error) { return namespace.New(kit, cfg.Metadata) },
			func() (run.Controller, error) { return gc.New(kit, cfg.Metadata) },
		)
	}
	if cfg.serves("apps", "daemonsets") && cfg.serves("apps", "controllerrevisions") {
		makers = append(makers, func() (run.Controller, error) { return daemonset.New(kit) })
	}
	var all []run.Controller
	for _, mk := range makers {
		c, err := mk()
		if err != nil {
			return nil, fmt.Errorf("make controller: %w", err)
		}
		if cfg.Enabled == nil || cfg.Enabled(c.Name) {
			all = append(all, c)
		}
	}
	loop, err := run.New(run.Config{
		Controllers: all, Log: kit.Log, Recorder: kit.Recorder, MinRevision: cfg.MinRevision,
	})
	if err != nil {
		return nil, fmt.Errorf("make loop: %w", err)
	}
	return &Controllers{loop: loop}, nil
}

func (c *Config) serves(group, resource string) bool {
	return c.Serves != nil && c.Serves(schema.GroupResource{Group: group, Resource: resource})
}

// Run runs the controllers under the fence until ctx ends and returns nil; an
// error means that the role should move. progress (may be nil) is called at
// least every [run.Heartbeat] while no reconcile hangs. Run may be called
// again for a later epoch.
func (c *Controllers) Run(ctx context.Context, fence role.Fence, progress func()) error {
	return c.loop.Run(ctx, fence, progress) //nolint:wrapcheck // the loop's errors name their controller
}
