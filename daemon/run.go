package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"skein.dev/skein/guard"
	"skein.dev/skein/identity"
)

// ExitCode is what a process that ran a daemon exits with: for a
// configuration that no restart mends, the code that tells the guard so.
func ExitCode(err error) int {
	var fatal *configError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &fatal):
		return guard.ExitConfig
	}
	return 1
}

// configError is a failure that starting again does not mend.
type configError struct{ error }

func (e *configError) Unwrap() error { return e.error }

// Run runs the peer whose data is in dataDir until ctx ends; its log goes to w.
func Run(ctx context.Context, dataDir, version string, w io.Writer) error {
	c, err := LoadConfig(dataDir)
	if err != nil {
		return &configError{err}
	}
	log, err := newLogger(w, c.LogLevel)
	if err != nil {
		return &configError{err}
	}
	r, err := loadRecord(c.DataDir)
	if err != nil {
		return &configError{err}
	}
	if err := r.settle(&c); err != nil {
		return err
	}
	keyring, err := c.keys().Load()
	if err != nil {
		return &configError{err}
	}
	certs, renewed, err := c.keys().Ensure(keyring, r.machine(c), time.Now())
	if err != nil {
		return err
	}
	if len(renewed) > 0 {
		log.InfoContext(ctx, "certificates renewed", "uses", renewed)
	}
	// The cluster's word outranks the flags this peer was made with.
	c.ClusterCIDRs, c.ServiceCIDRs, c.ClusterDomain = r.Settings.ClusterCIDRs, r.Settings.ServiceCIDRs, r.Settings.ClusterDomain
	p := &peer{Config: c, record: r, keyring: keyring, certs: certs, version: version, log: log}
	if err := p.incarnate(); err != nil {
		return err
	}
	log.InfoContext(ctx, "peer starts", "peer", r.Name, "version", version, "addresses", c.Addresses)
	if err := p.wire(ctx); err != nil {
		return err
	}
	defer p.close(ctx)
	return RunParts(ctx, log, p.parts())
}

// incarnate leaves the incarnation where the guard finds it for its answers.
func (p *peer) incarnate() error {
	path := filepath.Join(p.StateDir, incarnationFile)
	if err := os.WriteFile(path, []byte(p.keyring.Cluster.Incarnation), 0o600); err != nil {
		return fmt.Errorf("write incarnation: %w", err)
	}
	return nil
}

// incarnationFile is in the state directory.
const incarnationFile = "incarnation"

// own is the peer's certificate for use; Ensure has made sure it exists.
func (p *peer) own(use identity.Use) identity.Pair { return p.certs[use] }
