package daemon

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"

	"skein.dev/skein/api/role"
	"skein.dev/skein/api/status"
	"skein.dev/skein/identity"
	"skein.dev/skein/network"
)

const statusPath = status.Path

// parts is the peer in start order; it stops in reverse.
func (p *peer) parts() []Part {
	parts := []Part{
		{Name: "port", Run: p.port.Run},                           // first: the others speak through it
		{Name: "store", Run: p.store.Run},                         // everything reads it
		{Name: "gossip", Run: p.pool.Run},                         // who lives: the store's voters and the data plane follow it
		{Name: "api", Run: p.api.Run},                             // after the store: its clients are all below
		{Name: "membership", Run: p.membership.Run},               // after the API: reads Peers through it
		{Name: "informers", Run: p.runInformers, Ready: p.synced}, // all components read from them
		{Name: "records", Run: p.recordSelf, Restart: true},       // the first peer's own record and ranges
	}
	if !p.APIOnly() {
		parts = append(parts, p.nodeParts()...) // pods, and before them what they ask for at once
	}
	if p.sched != nil { // last: leading is given up first
		parts = append(parts, Part{Name: "scheduler", Run: p.allowed(p.runner(role.Scheduler, p.sched.Run).Run), Restart: true})
	}
	if p.control != nil {
		parts = append(parts, Part{Name: "controllers", Run: p.allowed(p.runner(role.Controllers, p.control.Run).Run), Restart: true})
	}
	return append(parts,
		Part{Name: "ease", Run: ease(p.log, p.api.Rest), Restart: true}, // after the start: what that took goes back to the system
		Part{Name: "goodbye", Run: p.sayGoodbye},                        // while the others can still hear it
	)
}

// nodeParts make the machine a node of the cluster.
func (p *peer) nodeParts() []Part {
	return []Part{
		{Name: "addresses", Run: p.followAddresses},         // ends the peer when the machine has moved
		{Name: "network", Run: p.runNetwork, Restart: true}, // before pods: their addresses and routes
		{Name: "proxy", Run: p.proxy.Run, Restart: true},    // before pods: they ask services at once
		{Name: "dns", Run: p.dns.Run, Restart: true},        // likewise
		{Name: "kubelet", Run: p.runKubelet, Restart: true}, // pods
	}
}

// allowed runs a part when the API knows what its user may do: in a new
// cluster roles are assigned before the first permissions are written.
func (p *peer) allowed(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if p.api.Ready(ctx) != nil {
			return nil //nolint:nilerr // ctx has ended
		}
		return run(ctx)
	}
}

func (p *peer) runInformers(ctx context.Context) error {
	p.informers.StartWithContext(ctx)
	<-ctx.Done()
	p.informers.Shutdown()
	return nil
}

// recordSelf puts the first peer on record; everyone else was recorded by who
// admitted them. What a peer declines and where it is may
// have changed since.
func (p *peer) recordSelf(ctx context.Context) error {
	if p.record.First {
		p.persist(ctx, "write own record", p.tryRecordSelf)
	}
	p.persist(ctx, "keep own record", func(ctx context.Context) error {
		return keepRecord(ctx, p.Config, string(p.record.Name), p.peers)
	})
	<-ctx.Done()
	return nil
}

func (p *peer) tryRecordSelf(ctx context.Context) error {
	if !p.APIOnly() {
		if _, err := claimPodCIDRs(ctx, p.store, p.ClusterCIDRs, p.record.Name); err != nil {
			return err
		}
	}
	return recordSelf(ctx, p.Config, p.record, p.own(identity.UsePeer), p.peers)
}

// runNetwork connects the pod network and tells the container runtime how
// pods join it.
func (p *peer) runNetwork(ctx context.Context) error {
	mtu, err := p.network.MTU()
	if err != nil {
		return err
	}
	other, err := network.WriteCNIConfig(network.CNIConfig{
		Dir: p.engine.CNIConfDir(), Ranges: p.record.PodCIDRs, DataDir: filepath.Join(p.DataDir, networkDir), MTU: mtu,
	})
	if err != nil {
		return err
	}
	if other != "" {
		p.log.InfoContext(ctx, "another network configuration is used for pods", "file", other)
	}
	return p.network.Run(ctx)
}

// runKubelet runs pods once the engine can.
func (p *peer) runKubelet(ctx context.Context) error {
	if err := p.engine.Ready(ctx); err != nil {
		return err
	}
	if err := p.engine.EnsurePause(ctx); err != nil {
		return err
	}
	return p.kubelet.Run(ctx)
}

// authorizeNodeAPI lets the API servers of the mesh, and administrators, ask
// the node API.
func (p *peer) authorizeNodeAPI(r *http.Request) error {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return errors.New("a client certificate is needed")
	}
	leaf := r.TLS.PeerCertificates[0]
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: p.keyring.Pool(identity.Clients), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return fmt.Errorf("verify client certificate: %w", err)
	}
	if slices.Contains(leaf.Subject.Organization, "system:masters") || leaf.Subject.CommonName == identity.KubeletClientUser {
		return nil
	}
	return fmt.Errorf("user %q may not ask the node API", leaf.Subject.CommonName)
}
