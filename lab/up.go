package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Mesh is what Up makes.
type Mesh struct {
	// Peers is how many peers the lab has, 3 if 0. A lab that exists keeps
	// its peers and can grow.
	Peers int
	// Images may be a directory; all its files that end in .tar are loaded on every peer.
	Images string
}

const maxPeers = 100

// Up makes the lab, or completes and starts the one that is there, and
// returns when all its peers are ready. What was made before a failure stays:
// Up goes on from there, Down clears it away.
func (l *Lab) Up(ctx context.Context, m Mesh) error {
	if m.Peers < 0 || m.Peers > maxPeers {
		return fmt.Errorf("lab of %d peers: it can have 1 to %d", m.Peers, maxPeers)
	}
	return l.locked(ctx, func() error {
		s, err := readState(l.cfg.Dir)
		if errors.Is(err, ErrNoLab) {
			s, err = &state{}, nil
		}
		if err != nil {
			return err
		}
		if err := l.plan(ctx, s, m.Peers); err != nil {
			return err
		}
		if err := ensureFabric(l.cfg.Dir, s.Peers); err != nil {
			return fmt.Errorf("make the lab's network: %w", err)
		}
		if err := l.ensureForwarder(ctx, s); err != nil {
			return err
		}
		if err := l.startMade(ctx, s); err != nil {
			return err
		}
		for i := range s.Peers {
			if !s.Peers[i].Made {
				if err := l.make(ctx, s, &s.Peers[i]); err != nil {
					return err
				}
			}
		}
		return l.load(ctx, s, m.Images)
	})
}

// plan adds the peers that are missing and chooses ports.
func (l *Lab) plan(ctx context.Context, s *state, peers int) error {
	if peers == 0 {
		peers = max(3, len(s.Peers))
	}
	if peers < len(s.Peers) {
		return fmt.Errorf("lab of %d peers: it has %d already: take peers out with `skein leave`, or the lab down", peers, len(s.Peers))
	}
	var err error
	if s.Any == 0 {
		if s.Any, err = freePort(ctx, 16443); err != nil {
			return err
		}
	}
	for i := len(s.Peers); i < peers; i++ {
		name := "p" + strconv.Itoa(i+1)
		p := Peer{Name: name, Address: peerAddress(i), Dir: filepath.Join(l.cfg.Dir, name), Cgroup: l.peerCgroup(name)}
		if p.API, err = freePort(ctx, 16443+i+1); err != nil {
			return err
		}
		if p.Node, err = freePort(ctx, 20250+i+1); err != nil {
			return err
		}
		s.Peers = append(s.Peers, p)
	}
	return l.write(s)
}

// freePort returns the preferred loopback port, or any if that is taken.
func freePort(ctx context.Context, preferred int) (int, error) {
	var lc net.ListenConfig
	for _, port := range []int{preferred, 0} {
		ln, err := lc.Listen(ctx, "tcp", loopback(port))
		if err != nil {
			continue
		}
		got := ln.Addr().(*net.TCPAddr).Port
		if err := ln.Close(); err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}
		return got, nil
	}
	return 0, errors.New("find a free port: there is none on loopback")
}

// make has the peer make a mesh, or join that of a peer that was made.
func (l *Lab) make(ctx context.Context, s *state, p *Peer) error {
	// What a failed attempt left behind would be in the way.
	if err := killAll(ctx, p.Cgroup); err != nil {
		return err
	}
	if err := os.RemoveAll(p.Dir); err != nil {
		return fmt.Errorf("clear directory: %w", err)
	}
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	begin := time.Now()
	var argv []string
	if at := made(s); at == nil {
		argv = l.cfg.Commands.First(*p)
	} else {
		token, err := l.run(ctx, *at, l.cfg.Commands.Token(*at))
		if err != nil {
			return err
		}
		argv = l.cfg.Commands.Join(*p, *at, token)
	}
	if _, err := l.run(ctx, *p, argv); err != nil {
		return err
	}
	l.say("peer %s is up after %.1f s", p.Name, time.Since(begin).Seconds())
	p.Made = true
	return l.write(s)
}

// made returns a peer that is part of the mesh and not cut off, or nil.
func made(s *state) *Peer {
	for i := range s.Peers {
		if s.Peers[i].Made && s.Peers[i].Cut == 0 {
			return &s.Peers[i]
		}
	}
	return nil
}

// load imports the images on all peers.
func (l *Lab) load(ctx context.Context, s *state, dir string) error {
	if dir == "" {
		return nil
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("load images: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil {
		return fmt.Errorf("load images: %w", err)
	}
	for _, p := range s.Peers {
		for _, f := range files {
			if _, err := l.run(ctx, p, l.cfg.Commands.Import(p, f)); err != nil {
				return err
			}
		}
	}
	return nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
