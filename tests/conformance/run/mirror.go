package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// mirrorAddr is a port on each peer's own loopback, which nothing else has.
const mirrorAddr = "127.0.0.1:5000"

// hosts tells containerd where to pull the suite's images from.
const hosts = `server = "http://` + mirrorAddr + `"
[host."http://` + mirrorAddr + `"]
  capabilities = ["pull", "resolve"]
`

// mirrors are registries within the peers that hold the suite's images. One
// that ended with its peer is to be started again.
type mirrors struct {
	lab
	program, images string

	work    sync.WaitGroup
	mu      sync.Mutex  // guards the field below
	running []io.Closer // their standard inputs
}

// start runs a mirror within the peer and returns when it serves.
func (m *mirrors) start(ctx context.Context, p peer) error {
	dir := filepath.Join(p.Dir, "registry", "registry.k8s.io")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("configure mirror: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(hosts), 0o644); err != nil {
		return fmt.Errorf("configure mirror: %w", err)
	}
	cmd := exec.CommandContext(ctx, m.skein, "lab", "exec", "--lab-dir", m.dir, p.Name, "--",
		m.program, "-images", filepath.Join(m.images, "images.tar"), "-blobs", filepath.Join(m.dir, "mirror"), "-listen", mirrorAddr)
	cmd.Stderr = m.out
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr); err != nil {
		return fmt.Errorf("start mirror: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start mirror: %w", err)
	}
	m.mu.Lock()
	m.running = append(m.running, in)
	m.mu.Unlock()
	ready := make(chan bool, 1)
	m.work.Go(func() {
		ready <- bufio.NewScanner(out).Scan()
		_ = cmd.Wait() // how it ends changes no test's result
	})
	if !<-ready {
		return errors.New("start mirror on " + p.Name + ": it ended")
	}
	return nil
}

// stop ends them all.
func (m *mirrors) stop() {
	m.mu.Lock()
	for _, in := range m.running {
		_ = in.Close() // it ends, however
	}
	m.mu.Unlock()
	m.work.Wait()
}
