package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Peer is one peer of a lab.
type Peer struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	// Dir is its directory: the data, with run for what a reboot clears.
	Dir string `json:"dir"`
	// Cgroup is where all its processes are.
	Cgroup string `json:"cgroup"`
	// API and Node are the loopback ports on the machine that lead to its
	// ports 6443 and 10250.
	API  int `json:"api"`
	Node int `json:"node"`
	// Made says that it has joined the mesh, or made it.
	Made bool `json:"made"`
	// Cut numbers the partition it is in; 0 is the rest.
	Cut int `json:"cut"`
}

// StateDir is where the peer keeps what a reboot clears.
func (p Peer) StateDir() string { return filepath.Join(p.Dir, "run") }

// Kubeconfig is where the peer writes its administrator's kubeconfig.
func (p Peer) Kubeconfig() string { return filepath.Join(p.Dir, "kubeconfig.yaml") }

// state is the lab's memory between commands.
type state struct {
	// Any is the loopback port that leads to the API of any peer that answers.
	Any   int    `json:"any"`
	Peers []Peer `json:"peers"`
}

const (
	apiPort  = 6443
	nodePort = 10250
)

// forward is one loopback port and where it leads.
type forward struct {
	port   int // on the machine
	peer   string
	target int
}

// forwards lists all ports, the one that leads to any peer (peer "") first.
func (s *state) forwards() []forward {
	all := []forward{{port: s.Any, target: apiPort}}
	for _, p := range s.Peers {
		all = append(all, forward{p.API, p.Name, apiPort}, forward{p.Node, p.Name, nodePort})
	}
	return all
}

func (s *state) peer(name string) (*Peer, error) {
	for i := range s.Peers {
		if s.Peers[i].Name == name {
			return &s.Peers[i], nil
		}
	}
	var names strings.Builder
	for _, p := range s.Peers {
		names.WriteString(" " + p.Name)
	}
	return nil, fmt.Errorf("peer %q: %w: it has%s", name, ErrNoPeer, names.String())
}

func readState(dir string) (*state, error) {
	data, err := os.ReadFile(statePath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lab in %s: %w: `skein lab up` makes one", dir, ErrNoLab)
	}
	if err != nil {
		return nil, fmt.Errorf("read lab: %w", err)
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("read lab: decode %s: %w: `skein lab down` clears it away", statePath(dir), err)
	}
	return &s, nil
}

func (l *Lab) write(s *state) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode lab: %w", err)
	}
	tmp := statePath(l.cfg.Dir) + ".new"
	if err := os.WriteFile(tmp, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write lab: %w", err)
	}
	if err := os.Rename(tmp, statePath(l.cfg.Dir)); err != nil {
		return fmt.Errorf("write lab: %w", err)
	}
	return nil
}

// withPeer runs f on the named peer while the lab is locked.
func (l *Lab) withPeer(ctx context.Context, name string, f func(*state, *Peer) error) error {
	return l.existing(ctx, func(s *state) error {
		p, err := s.peer(name)
		if err != nil {
			return err
		}
		return f(s, p)
	})
}

// existing runs f on the lab's state while the lab is locked. Where there is
// no lab it leaves no trace.
func (l *Lab) existing(ctx context.Context, f func(*state) error) error {
	if _, err := readState(l.cfg.Dir); errors.Is(err, ErrNoLab) {
		return err
	}
	return l.locked(ctx, func() error {
		s, err := readState(l.cfg.Dir)
		if err != nil {
			return err
		}
		return f(s)
	})
}

// pause waits a moment, or returns the error of ctx.
func pause(ctx context.Context) error {
	t := time.NewTimer(20 * time.Millisecond)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
