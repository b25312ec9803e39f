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

// mirrors runs a mirror of the suite's registry within each peer and returns
// when all of them serve. They end when stop is called.
func (l lab) mirrors(ctx context.Context, program, images string, peers []peer) (stop func(), err error) {
	var work sync.WaitGroup
	var running []io.Closer // their standard inputs
	stop = func() {
		for _, in := range running {
			_ = in.Close() // it ends, however
		}
		work.Wait()
	}
	for _, p := range peers {
		dir := filepath.Join(p.Dir, "registry", "registry.k8s.io")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			stop()
			return nil, fmt.Errorf("configure mirror: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(hosts), 0o644); err != nil {
			stop()
			return nil, fmt.Errorf("configure mirror: %w", err)
		}
		cmd := exec.CommandContext(ctx, l.skein, "lab", "exec", "--lab-dir", l.dir, p.Name, "--",
			program, "-images", filepath.Join(images, "images.tar"), "-blobs", filepath.Join(l.dir, "mirror"), "-listen", mirrorAddr)
		cmd.Stderr = l.out
		in, inErr := cmd.StdinPipe()
		out, outErr := cmd.StdoutPipe()
		if err := errors.Join(inErr, outErr); err != nil {
			stop()
			return nil, fmt.Errorf("start mirror: %w", err)
		}
		if err := cmd.Start(); err != nil {
			stop()
			return nil, fmt.Errorf("start mirror: %w", err)
		}
		running = append(running, in)
		ready := make(chan bool, 1)
		work.Go(func() {
			ready <- bufio.NewScanner(out).Scan()
			_ = cmd.Wait() // how it ends changes no test's result
		})
		if !<-ready {
			stop()
			return nil, errors.New("start mirror on " + p.Name + ": it ended")
		}
	}
	return stop, nil
}
