// Package lab runs a mesh of several peers on one Linux machine, each the
// ordinary program in network and mount namespaces and cgroups of its own, and
// lets faults happen to them on demand.
//
// Its invariant: nothing of a lab is outside its directory, its cgroups and
// its namespaces, apart from loopback ports; no packet of a peer can leave the
// machine, whose routes and rules are never touched; and Down finds all of it
// by the directory's name alone, even when the state file is lost.
package lab

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Config is what a Lab needs.
type Config struct {
	// Dir is the lab's directory: its state and, for each peer, a directory
	// of the peer's name. It should be short: sockets live below it.
	Dir string
	// Commands makes the command lines of peers.
	Commands Commands
	// Forwarder is the command line of a process that calls [Forward] with Dir.
	Forwarder []string
	// Out takes progress and the peers' own messages; nil discards them.
	Out io.Writer
}

// Lab is the lab in one directory. Its methods may be called by several
// processes at a time: they wait for each other.
type Lab struct {
	cfg  Config
	name string // of the cgroup that holds everything
}

// The errors that callers branch on.
var (
	ErrNoLab   = errors.New("there is no lab here")
	ErrNoPeer  = errors.New("the lab has no such peer")
	ErrStopped = errors.New("it does not run")
)

// New checks cfg and touches nothing.
func New(cfg Config) (*Lab, error) {
	if cfg.Dir == "" || cfg.Commands == nil || len(cfg.Forwarder) == 0 {
		return nil, errors.New("lab: directory, commands or forwarder is missing")
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("lab: resolve directory: %w", err)
	}
	cfg.Dir = dir
	if cfg.Out == nil {
		cfg.Out = io.Discard
	}
	return &Lab{cfg: cfg, name: nameOf(dir)}, nil
}

// nameOf makes a cgroup's name of the lab's directory.
func nameOf(dir string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(dir)) // never fails
	return fmt.Sprintf("skein-lab-%08x", h.Sum32())
}

func (l *Lab) say(format string, args ...any) {
	_, _ = fmt.Fprintf(l.cfg.Out, "lab: "+format+"\n", args...) // progress only
}

func statePath(dir string) string { return filepath.Join(dir, "lab.json") }

// pin is the file that a namespace is bound to.
func pin(dir, name string) string { return filepath.Join(dir, "ns", name) }

// peerCgroup is where all processes of a peer are, in every hierarchy.
func (l *Lab) peerCgroup(name string) string { return "/" + l.name + "/" + name }

// locked runs f while no other command works on the lab.
func (l *Lab) locked(ctx context.Context, f func() error) error {
	if os.Geteuid() != 0 {
		return errors.New("lab: it makes namespaces and cgroups: run it as root")
	}
	if err := os.MkdirAll(l.cfg.Dir, 0o755); err != nil {
		return fmt.Errorf("make lab directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(l.cfg.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock lab: %w", err)
	}
	defer func() { _ = lock.Close() }()
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f()
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock lab: %w", err)
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("lock lab: another command works on it: %w", err)
		}
	}
}
