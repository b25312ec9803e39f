package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"skein.dev/skein/api/status"
)

// lab is a lab that this run made, driven by the program's own commands.
type lab struct {
	program string
	dir     string
	peers   []string
	upTook  time.Duration
}

// withLab makes a lab of so many peers, runs f and takes the lab down,
// whatever happened and also when ctx has ended.
func (b *bench) withLab(ctx context.Context, peers int, f func(context.Context, *lab) error) (err error) {
	dir, err := os.MkdirTemp("", "skein-bench-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	l := &lab{dir: filepath.Join(dir, "lab"), program: filepath.Join(dir, "skein")}
	defer func() { err = errors.Join(err, l.down(ctx), os.RemoveAll(dir)) }()
	// A copy: a build that replaces the original must not mix two programs.
	if err := copyProgram(b.skein, l.program); err != nil {
		return err
	}
	for i := range peers {
		l.peers = append(l.peers, "p"+strconv.Itoa(i+1))
	}
	up, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	begin := time.Now()
	if _, err := l.skein(up, "lab", "up", "--lab-dir", l.dir, "--peers", strconv.Itoa(peers)); err != nil {
		return err
	}
	l.upTook = time.Since(begin)
	if _, err := l.skein(up, "lab", "up", "--lab-dir", l.dir, "--images", b.images); err != nil {
		return err
	}
	return f(ctx, l)
}

func (l *lab) down(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	_, err := l.skein(ctx, "lab", "down", "--lab-dir", l.dir)
	return err
}

// skein runs the program and returns its stdout.
func (l *lab) skein(ctx context.Context, args ...string) ([]byte, error) {
	return output(exec.CommandContext(ctx, l.program, args...))
}

// on runs a command in a peer's namespaces, with the peer's own kubeconfig.
func (l *lab) on(ctx context.Context, peer string, argv ...string) ([]byte, error) {
	return output(l.command(ctx, peer, argv...))
}

func (l *lab) command(ctx context.Context, peer string, argv ...string) *exec.Cmd {
	return exec.CommandContext(ctx, l.program, append([]string{"lab", "exec", "--lab-dir", l.dir, peer, "--"}, argv...)...)
}

// kubectl is the real kubectl against one peer.
func (l *lab) kubectl(ctx context.Context, peer string, args ...string) ([]byte, error) {
	return l.on(ctx, peer, append([]string{l.program, "kubectl"}, args...)...)
}

// status is what one peer says of the mesh.
func (l *lab) status(ctx context.Context, peer string) (*status.Mesh, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	raw, err := l.kubectl(ctx, peer, "get", "--raw", status.Path)
	if err != nil {
		return nil, err
	}
	var m status.Mesh
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("decode status of %s: %w", peer, err)
	}
	return &m, nil
}

// load re-executes this program as a load generator on a peer.
func (l *lab) load(ctx context.Context, peer string, args ...string) (loadResult, error) {
	exe, err := os.Executable()
	if err != nil {
		return loadResult{}, fmt.Errorf("find my own program: %w", err)
	}
	raw, err := l.on(ctx, peer, append([]string{exe, loadCommand}, args...)...)
	if err != nil {
		return loadResult{}, err
	}
	var res loadResult
	if err := json.Unmarshal(raw, &res); err != nil {
		return res, fmt.Errorf("decode result of the load: %w", err)
	}
	return res, nil
}

func output(cmd *exec.Cmd) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		msg := strings.TrimSpace(stderr.String())
		return nil, fmt.Errorf("run %s: %w: %s", strings.Join(cmd.Args[1:], " "), err, msg[max(0, len(msg)-2000):])
	}
	return stdout.Bytes(), nil
}

func copyProgram(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("open the program to measure: %w", err)
	}
	defer func() { _ = src.Close() }()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return fmt.Errorf("copy program: %w", err)
	}
	_, err = io.Copy(dst, src)
	if err := errors.Join(err, dst.Close()); err != nil {
		return fmt.Errorf("copy program: %w", err)
	}
	return nil
}

// wait waits for d or the end of ctx.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
